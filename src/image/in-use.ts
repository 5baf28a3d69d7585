import { processesWithFileOpen } from '../kernel/proc.js';
import { ImageError } from './errors.js';
import type { LockConflict } from './lock.js';
import type { OpenFile } from './open-file.js';

const holdersNamedMax = 3;

/** The error for a file that another program has locked; the caller has closed its own fd of it. */
export function inUseError(path: string, file: Pick<OpenFile, 'stat'>, { kind, permission }: LockConflict): ImageError {
  const deed = { read: 'reads', write: 'writes to', resize: 'may resize' }[permission];
  const denied = { read: 'read', write: 'write to', resize: 'resize' }[permission];
  const what = kind === 'used' ? deed : `lets nobody else ${denied}`;
  return new ImageError('in-use', `${path} is in use${byWhom(file)}, which ${what} it`);
}

/** ' by qemu-nbd (process 713)'; an OFD lock itself tells no process. */
export function byWhom({ stat }: Pick<OpenFile, 'stat'>): string {
  const holders = processesWithFileOpen(stat.dev, stat.ino).filter(({ holdsLock }) => holdsLock);
  const others = holders.filter(({ pid }) => pid !== process.pid);
  const named = (others.length > 0 ? others : holders).slice(0, holdersNamedMax);
  if (named.length === 0) return ' by a program that cannot be seen from here (of another user, container or machine)';
  return ` by ${named.map(({ pid, command }) => `${command} (process ${pid})`).join(', ')}`;
}
