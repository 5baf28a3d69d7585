import { closeSync, constants, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { lockByteWrite } from '../kernel/fd-calls.js';
import { MountError } from './errors.js';

/** Beside the folder of what runs: it stays, because a lock on a file that somebody removes is none. */
const LOCK_FILE = '/run/tsnbd.lock';

const LOCK_POLL_MS_MIN = 5;
const LOCK_POLL_MS_MAX = 100;
/** Of a folder: longer than another mount may take, and short enough for systemd's 90 s. */
export const LOCK_LIMIT_MS = 60_000;

/** A file system of the same source may just be checked: whoever waits is ended from outside, by systemd or the user. */
export const SOURCE_LOCK_LIMIT_MS = 24 * 3_600_000;

/** What a lock is on. Whoever takes both takes that of the folder first. */
export type Locked = { readonly folder: string } | { readonly source: string };

/**
 * Takes a lock that other mounts and unmounts respect, and gives the function that lets it go; the end of the process does
 * so too. Every name is a byte of one file: two that meet there by chance wait for each other, and that is all.
 * Answers undefined when it is held by another process at the limit.
 *
 * @throws MountError 'system' where /run cannot be written, 'interrupted'
 */
export async function takeLock(on: Locked, limitMs: number, stop?: AbortSignal): Promise<(() => void) | undefined> {
  const fd = openLockFile();
  const byte = byteOf(on);
  const end = performance.now() + limitMs;
  try {
    for (let pollMs = LOCK_POLL_MS_MIN; !lockByteWrite(fd, byte); pollMs = Math.min(2 * pollMs, LOCK_POLL_MS_MAX)) {
      if (stop?.aborted)
        throw new MountError('interrupted', 'interrupted while another mount or unmount was under way');
      if (performance.now() >= end) {
        closeSync(fd);
        return undefined;
      }
      await sleep(pollMs);
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return () => closeSync(fd);
}

function openLockFile(): number {
  try {
    return openSync(LOCK_FILE, constants.O_RDWR | constants.O_CREAT, 0o600);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new MountError('system', `cannot write ${LOCK_FILE} (${code}), so nothing was touched`, cause);
  }
}

/** Folders have even bytes, sources odd ones. */
function byteOf(on: Locked): number {
  const [name, oddity] = 'folder' in on ? [on.folder, 0] : [on.source, 1];
  const { createHash } = process.getBuiltinModule('node:crypto');
  return 2 * createHash('sha256').update(name).digest().readUIntBE(0, 6) + oddity;
}
