import { constants } from 'node:os';
import type { FileCalls } from './file-calls.js';

const { EINTR } = constants.errno;

/** A signal can interrupt a call on a network file system; one that never gets through is an error. */
const INTERRUPTIONS_MAX = 100;

/**
 * Reads from a file whose end is no error: what lies behind it is zeroes. Answers 0 or a positive errno.
 */
export function readZeroed(
  calls: FileCalls,
  fd: number,
  offsetBytes: number,
  length: number,
  target: Uint8Array,
  at: number,
): number {
  let interruptions = 0;
  for (let done = 0; done < length; ) {
    const result = calls.read(fd, target, at + done, length - done, offsetBytes + done);
    if (result === -EINTR && ++interruptions < INTERRUPTIONS_MAX) continue;
    if (result < 0) return -result;
    if (result === 0) {
      target.fill(0, at + done, at + length);
      return 0;
    }
    done += result;
  }
  return 0;
}
