import { closeSync } from 'node:fs';
import { processesWithFileOpen } from '../kernel/proc.js';
import { ImageError } from './errors.js';
import { type LockConflict, type LockPlan, takeLocks } from './lock.js';
import { type OpenFile, openFile } from './open-file.js';

const holdersNamedMax = 3;

/**
 * Opens what is at `path` and takes the locks that `planOf` wants, which may look at the file first and refuse it.
 *
 * @throws ImageError, or KernelError 'system' on a file system without locks
 */
export function openLocked(path: string, readOnly: boolean, planOf: (file: OpenFile) => LockPlan): OpenFile {
  const file = openFile(path, readOnly);
  let conflict: LockConflict | undefined;
  try {
    conflict = takeLocks(file.fd, planOf(file));
  } catch (error) {
    closeSync(file.fd);
    throw error;
  }
  if (conflict === undefined) return file;
  closeSync(file.fd); // our own locks are not to be named below
  throw new ImageError('in-use', conflictText(path, file, conflict));
}

function conflictText(path: string, file: OpenFile, { kind, permission }: LockConflict): string {
  const deed = { read: 'reads', write: 'writes to', resize: 'may resize' }[permission];
  const denied = { read: 'read', write: 'write to', resize: 'resize' }[permission];
  return `${path} is in use${byWhom(file)}, which ${kind === 'used' ? deed : `lets nobody else ${denied}`} it`;
}

/** ' by qemu-nbd (process 713)'; an OFD lock itself tells no process. */
export function byWhom({ stat }: OpenFile): string {
  const holders = processesWithFileOpen(stat.dev, stat.ino).filter(({ holdsLock }) => holdsLock);
  const others = holders.filter(({ pid }) => pid !== process.pid);
  const named = (others.length > 0 ? others : holders).slice(0, holdersNamedMax);
  if (named.length === 0) return ' by a program that cannot be seen from here (of another user, container or machine)';
  return ` by ${named.map(({ pid, command }) => `${command} (process ${pid})`).join(', ')}`;
}
