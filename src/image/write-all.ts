import { constants } from 'node:os';
import type { FileCalls } from './file-calls.js';

const { EINTR, EIO } = constants.errno;

/** A signal can interrupt a call on a network file system; one that never gets through is an error. */
const INTERRUPTIONS_MAX = 100;

/** Writes all bytes. Answers 0 or a positive errno. */
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
