import { readSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { pipeIntoSocket } from '../kernel/pipe-calls.js';
import { waitWritable } from '../kernel/socket-calls.js';

const { EAGAIN, EINTR, EIO } = constants.errno;

/**
 * Reads what is there from a socket, at most `length`, into `target` from `at` on; a blocking socket waits for it. Answers
 * the number of bytes, 0 at the end of the stream, or −errno: −EAGAIN where there is nothing (yet).
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

/** As receiveBytes, of a socket that is often empty: Node throws to say so, and most of what that takes is the stack. */
export function receiveIfAny(socketFd: number, target: Uint8Array, at: number, length: number): number {
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  const received = receiveBytes(socketFd, target, at, length);
  Error.stackTraceLimit = stackTraceLimit;
  return received;
}

/**
 * Writes all of `source` from 0 to `length` to a socket, and waits until it has taken it; calls `onFull` before each wait, if the
 * socket does not block. Answers 0 or −errno.
 */
export function sendBytes(socketFd: number, source: Uint8Array, length: number, onFull: () => void): number {
  let sent = 0;
  while (sent < length) {
    try {
      sent += writeSync(socketFd, source, sent, length - sent, null);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === EAGAIN) onFull();
      const fault = faultOf(socketFd, errno);
      if (fault !== 0) return fault;
    }
  }
  return 0;
}

/** Writes a few bytes, all or none, to a pipe that does not wait. Answers how many it took: 0 where it is full. */
export function putBytes(pipeWriteFd: number, source: Uint8Array, length: number): number {
  try {
    return writeSync(pipeWriteFd, source, 0, length, null);
  } catch (error) {
    if (errnoOf(error) === EAGAIN) return 0;
    throw error;
  }
}

/** Moves all `length` bytes that a pipe holds to a socket, and waits until it has taken them. Answers 0 or −errno. */
export function sendPiped(socketFd: number, pipeReadFd: number, length: number): number {
  for (let sent = 0; sent < length; ) {
    const moved = pipeIntoSocket(pipeReadFd, socketFd, length - sent);
    if (moved === 0) return -EIO; // the pipe holds less than it should
    const fault = moved < 0 ? faultOf(socketFd, -moved) : 0;
    if (fault !== 0) return fault;
    if (moved > 0) sent += moved;
  }
  return 0;
}

/** Answers 0 when the write may be tried again, after a wait where the socket is full; else −errno. */
function faultOf(socketFd: number, errno: number): number {
  if (errno === EINTR) return 0;
  if (errno !== EAGAIN) return -errno;
  return Math.min(waitWritable(socketFd), 0);
}

/** The positive errno of what node:fs threw. */
function errnoOf(error: unknown): number {
  const { errno } = error as NodeJS.ErrnoException;
  return typeof errno === 'number' && errno < 0 ? -errno : EIO;
}
