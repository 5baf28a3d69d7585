import { closeSync } from 'node:fs';
import { libc } from './libc.js';
import { F_SETPIPE_SZ, O_CLOEXEC } from './libc-abi.js';
import { PlacedBytes, setU64 } from './memory.js';

/** A pipe; both ends are closed on exec, and blocking until told otherwise. */
export interface Pipe {
  readonly readFd: number;
  readonly writeFd: number;
}

/** Absent where the process has no fds left. */
export function makePipe(): Pipe | undefined {
  const fds = new Uint8Array(8);
  if (libc.pipe2(fds, O_CLOEXEC) < 0) return undefined;
  const view = new DataView(fds.buffer);
  return { readFd: view.getInt32(0, true), writeFd: view.getInt32(4, true) };
}

/** A pipe that holds so many bytes at least. Absent where the process has no fds left, or that is not granted (pipe(7)). */
export function makeLargePipe(bytes: number): Pipe | undefined {
  const pipe = makePipe();
  if (pipe === undefined || libc.fcntl(pipe.writeFd, F_SETPIPE_SZ, bytes) >= bytes) return pipe;
  closePipe(pipe);
  return undefined;
}

export function closePipe({ readFd, writeFd }: Pipe): void {
  closeSync(readFd);
  closeSync(writeFd);
}

/** An off_t. */
const offset = new PlacedBytes(8);

/**
 * Puts a file's pages into a pipe, by reference where the file system can (sendfile(2) into a pipe). Answers the bytes
 * moved, 0 at the end of the file, or −1: the pipe does not wait and is full, or whatever a read of the file will tell.
 */
export function fileIntoPipe(fileFd: number, offsetBytes: number, lengthBytes: number, pipeWriteFd: number): number {
  setU64(offset.view, 0, offsetBytes);
  return libc.sendfile(pipeWriteFd, fileFd, offset.address, lengthBytes);
}

/** Moves what a pipe holds to a socket (splice(2)). Answers the bytes moved or −errno, EAGAIN for a socket that does not wait. */
export function pipeIntoSocket(pipeReadFd: number, socketFd: number, lengthBytes: number): number {
  return libc.splice(pipeReadFd, socketFd, lengthBytes);
}
