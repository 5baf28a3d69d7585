import { libc } from './libc.js';
import { F_SETPIPE_SZ, O_CLOEXEC } from './libc-abi.js';

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

/** Answers how many bytes the pipe holds now: at least `bytes`, or −errno where that is not granted (pipe(7)). */
export function growPipe({ writeFd }: Pipe, bytes: number): number {
  return libc.fcntl(writeFd, F_SETPIPE_SZ, bytes);
}

const offset = new Uint8Array(8);
const offsetView = new DataView(offset.buffer);

/**
 * Puts a file's pages into a pipe, by reference where the file system can (sendfile(2) into a pipe). Answers the bytes
 * moved, 0 at the end of the file, or −errno; EAGAIN where a pipe that does not wait is full.
 */
export function fileIntoPipe(fileFd: number, offsetBytes: number, lengthBytes: number, pipeWriteFd: number): number {
  offsetView.setUint32(0, offsetBytes % 2 ** 32, true);
  offsetView.setUint32(4, Math.floor(offsetBytes / 2 ** 32), true);
  return libc.sendfile(pipeWriteFd, fileFd, offset, lengthBytes);
}

/** Moves what a pipe holds to a socket (splice(2)). Answers the bytes moved or −errno, EAGAIN for a socket that does not wait. */
export function pipeIntoSocket(pipeReadFd: number, socketFd: number, lengthBytes: number): number {
  return libc.splice(pipeReadFd, socketFd, lengthBytes, 0);
}
