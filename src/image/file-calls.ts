import { closeSync, fdatasyncSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { adviseWillNeed, fallocate, seek } from '../kernel/fd-calls.js';
import { fileIntoPipe } from '../kernel/pipe-calls.js';
import { type BegunSync, RingSync } from './begun-sync.js';

/**
 * The calls on an image's file: each blocks and answers a number ≥ 0 or −errno, and throws nothing. A signal
 * may end one early (EINTR). Tests pass their own for faults that no file system shows on request.
 */
export interface FileCalls {
  /** Answers the bytes read, fewer than asked for where the file ends or the kernel likes it so. */
  read(fd: number, target: Uint8Array, at: number, length: number, offsetBytes: number): number;
  /** Answers the bytes written, perhaps fewer than given. */
  write(fd: number, source: Uint8Array, at: number, length: number, offsetBytes: number): number;
  /** `mode` is PUNCH_HOLE, ZERO_RANGE or RESERVE of kernel/fd-calls. */
  fallocate(fd: number, mode: number, offsetBytes: number, length: number): number;
  /** Answers an offset; `what` is NEXT_DATA, NEXT_HOLE or END_OF_FILE of kernel/fd-calls. */
  seek(fd: number, offsetBytes: number, what: number): number;
  /** Has the kernel begin to read a range. */
  willNeed(fd: number, offsetBytes: number, length: number): number;
  /** Moves bytes into a pipe by reference; answers how many, 0 where that cannot be done or the file ends. */
  intoPipe(fd: number, offsetBytes: number, length: number, pipeFd: number): number;
  /** ftruncate(2): the file has so many bytes from now on. */
  truncate(fd: number, bytes: number): number;
  /** fdatasync(2). */
  sync(fd: number): number;
  /** What syncs some files together while its thread goes on; absent where the kernel cannot. */
  openBegunSync(fds: readonly number[]): BegunSync | undefined;
  /** Answers a second, independent fd of the same file, whatever its name has become; `flags` are those of open(2). */
  reopen(fd: number, flags: number): number;
  close(fd: number): number;
  /** Gives memory back that only calls need. */
  relax?(): void;
}

export const fileCalls: FileCalls = {
  read: (fd, target, at, length, offsetBytes) => answer(() => readSync(fd, target, at, length, offsetBytes)),
  write: (fd, source, at, length, offsetBytes) => answer(() => writeSync(fd, source, at, length, offsetBytes)),
  fallocate,
  seek,
  willNeed: adviseWillNeed,
  intoPipe: fileIntoPipe,
  truncate: (fd, bytes) =>
    answer(() => {
      ftruncateSync(fd, bytes);
      return 0;
    }),
  sync: (fd) =>
    answer(() => {
      fdatasyncSync(fd);
      return 0;
    }),
  openBegunSync: (fds) => RingSync.on(fds, fileCalls),
  reopen: (fd, flags) => answer(() => openSync(`/proc/self/fd/${fd}`, flags)),
  close: (fd) =>
    answer(() => {
      closeSync(fd);
      return 0;
    }),
};

/** node:fs throws an error with a negative `errno`; anything else that is thrown is a mistake of ours. */
function answer(act: () => number): number {
  try {
    return act();
  } catch (error) {
    if (error instanceof Error && 'errno' in error && typeof error.errno === 'number') return error.errno;
    throw error;
  }
}
