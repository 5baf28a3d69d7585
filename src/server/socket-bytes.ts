import { readSync, writeSync } from 'node:fs';
import { constants } from 'node:os';

const { EINTR, EIO } = constants.errno;

/**
 * Waits for bytes on a blocking socket and reads what is there, at most `length`, into `target` from `at` on. Answers
 * their number, 0 at the end of the stream, or −errno.
 */
export function receiveBytes(socketFd: number, target: Uint8Array, at: number, length: number): number {
  for (;;) {
    try {
      return readSync(socketFd, target, at, length, null);
    } catch (error) {
      // libuv does not begin a read again that a signal interrupted.
      if (errnoOf(error) !== EINTR) return -errnoOf(error);
    }
  }
}

/** Writes all of `source` from 0 to `length` to a blocking socket. Answers 0 or −errno. */
export function sendBytes(socketFd: number, source: Uint8Array, length: number): number {
  let sent = 0;
  while (sent < length) {
    try {
      sent += writeSync(socketFd, source, sent, length - sent, null);
    } catch (error) {
      if (errnoOf(error) !== EINTR) return -errnoOf(error);
    }
  }
  return 0;
}

/** The positive errno of what node:fs threw. */
function errnoOf(error: unknown): number {
  const { errno } = error as NodeJS.ErrnoException;
  return typeof errno === 'number' && errno < 0 ? -errno : EIO;
}
