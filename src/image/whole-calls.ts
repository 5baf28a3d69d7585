import { constants } from 'node:os';
import type { FileCalls } from './file-calls.js';

// Reads and writes of a whole range, in as many calls as it takes. Each answers 0 or a positive errno.

const { EINTR, EIO } = constants.errno;

/** A signal can interrupt a call on a network file system; one that never gets through is an error. */
const INTERRUPTIONS_MAX = 100;

/** Reads from a file whose end is no error from `fileBytes` on: what lies behind it is zeroes. */
export function readZeroed(
  calls: FileCalls,
  fd: number,
  offsetBytes: number,
  length: number,
  target: Uint8Array,
  at: number,
  fileBytes = 0,
): number {
  let interruptions = 0;
  for (let done = 0; done < length; ) {
    const result = calls.read(fd, target, at + done, length - done, offsetBytes + done);
    if (result === -EINTR && ++interruptions < INTERRUPTIONS_MAX) continue;
    if (result < 0) return -result;
    if (result === 0) {
      // Somebody cut the file: zeroes in place of data would look like a disk that was wiped.
      if (offsetBytes + done < fileBytes) return EIO;
      target.fill(0, at + done, at + length);
      return 0;
    }
    done += result;
  }
  return 0;
}

export function writeAll(
  calls: FileCalls,
  fd: number,
  offsetBytes: number,
  length: number,
  source: Uint8Array,
  at: number,
): number {
  let interruptions = 0;
  for (let done = 0; done < length; ) {
    const result = calls.write(fd, source, at + done, length - done, offsetBytes + done);
    if (result === -EINTR && ++interruptions < INTERRUPTIONS_MAX) continue;
    if (result < 0) return -result;
    if (result === 0) return EIO; // write(2) does not do this; going on could take for ever
    done += result;
  }
  return 0;
}
