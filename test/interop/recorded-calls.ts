import { closeSync, copyFileSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import type { BegunSync } from '#tsnbd/image/begun-sync.js';
import { type FileCalls, fileCalls } from '#tsnbd/image/file-calls.js';
import { RESERVE } from '#tsnbd/kernel/fd-calls.js';

/** A change of a file, as it was asked of the system. */
export type Change =
  | { readonly kind: 'write'; readonly offsetBytes: number; readonly bytes: Uint8Array }
  | { readonly kind: 'hole'; readonly offsetBytes: number; readonly length: number }
  | { readonly kind: 'truncate'; readonly bytes: number }
  /** Of so many changes: others were made while it went on. */
  | { readonly kind: 'sync'; readonly of: number };

/** Calls that do what they are asked for and keep a list of all changes of the file. `duringSync` is what others do while one syncs. */
export function recordingCalls(changes: Change[], duringSync: () => void = () => {}): FileCalls {
  return {
    ...fileCalls,
    write: (fd, source, at, length, offsetBytes) => {
      const bytes = Uint8Array.from(source.subarray(at, at + length));
      changes.push({ kind: 'write', offsetBytes, bytes });
      return fileCalls.write(fd, source, at, length, offsetBytes);
    },
    fallocate: (fd, mode, offsetBytes, length) => {
      if (mode !== RESERVE) changes.push({ kind: 'hole', offsetBytes, length });
      return fileCalls.fallocate(fd, mode, offsetBytes, length);
    },
    truncate: (fd, bytes) => {
      changes.push({ kind: 'truncate', bytes });
      return fileCalls.truncate(fd, bytes);
    },
    sync: (fd) => {
      const of = changes.length;
      duringSync();
      changes.push({ kind: 'sync', of });
      return fileCalls.sync(fd);
    },
    openBegunSync: (fds) => {
      const sync = fileCalls.openBegunSync(fds);
      return sync === undefined ? undefined : recordedSync(sync, changes);
    },
  };
}

/** A sync is one of what was there when it began, and nobody may count on it before it has ended. */
function recordedSync(sync: BegunSync, changes: Change[]): BegunSync {
  let of = 0;
  return {
    begin: () => {
      of = changes.length;
      return sync.begin();
    },
    finish: () => {
      const errno = sync.finish();
      changes.push({ kind: 'sync', of });
      return errno;
    },
    close: () => sync.close(),
    get readableFd() {
      return sync.readableFd;
    },
    get isDone() {
      return sync.isDone;
    },
  };
}

const sectorBytes = 512;

/**
 * Makes the file that is left when the machine stops after `count` changes: all that was synced, and of the rest what `isKept`
 * says, sector by sector.
 */
export function replay(
  original: string,
  target: string,
  changes: readonly Change[],
  count: number,
  isKept: () => boolean,
): void {
  copyFileSync(original, target);
  const done = changes.slice(0, count);
  const synced = Math.max(0, ...done.map((change) => (change.kind === 'sync' ? change.of : 0)));
  const fd = openSync(target, 'r+');
  try {
    for (const [index, change] of done.entries()) {
      const all = index < synced;
      if (change.kind === 'write' && !all) writeSectors(fd, change.offsetBytes, change.bytes, isKept);
      else if (all || change.kind === 'sync' || isKept()) make(fd, change);
    }
  } finally {
    closeSync(fd);
  }
}

/** Makes one change of a file. */
export function make(fd: number, change: Change): void {
  if (change.kind === 'truncate') ftruncateSync(fd, change.bytes);
  else if (change.kind === 'hole') fileCalls.fallocate(fd, 3, change.offsetBytes, change.length);
  else if (change.kind === 'write') writeSync(fd, change.bytes, 0, change.bytes.length, change.offsetBytes);
}

function writeSectors(fd: number, offsetBytes: number, bytes: Uint8Array, isKept: () => boolean): void {
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(bytes.length, at + sectorBytes - ((offsetBytes + at) % sectorBytes));
    if (isKept()) writeSync(fd, bytes, at, end - at, offsetBytes + at);
    at = end;
  }
}
