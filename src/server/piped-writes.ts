import { closeSync, readSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { Image } from '../image/image.js';
import { growPipe, makePipe, type Pipe, socketIntoPipe } from '../kernel/pipe-calls.js';
import { isUnixSocket } from '../kernel/socket-calls.js';
import { INPUT_BYTES, type RequestInput } from './request-input.js';

/** Of what has not come yet of a WRITE: from here on not copying it is worth the calls it takes. */
export const PIPED_WRITE_BYTES_MIN = 196_608;
/** Of the pipe: what a socket holds of a client fits, unless that is a large buffer of many small pieces. */
const PIPE_BYTES = 1_048_576;

/**
 * Large WRITEs with a copy less: what has come goes by reference from the socket into a pipe, and is copied from there into the
 * image.
 */
export class PipedWrites {
  readonly #socketFd: number;
  readonly #image: Image;
  /** 'unused' until the first large write; absent where it cannot be done. */
  #pipe: Pipe | 'unused' | undefined = 'unused';

  constructor(socketFd: number, image: Image) {
    this.#socketFd = socketFd;
    this.#image = image;
  }

  get areAvailable(): boolean {
    if (this.#pipe === 'unused') this.#pipe = this.#isWorthIt() ? openPipe() : undefined;
    return this.#pipe !== undefined;
  }

  /**
   * Waits for bytes, as a read of the socket does, and has the image write them, until `length` are written. Answers how many
   * are: where they are fewer, `input`, which was empty, may have some that are not written, and the next read or write says why.
   */
  move(offsetBytes: number, length: number, input: RequestInput): number {
    if (typeof this.#pipe !== 'object') return 0;
    for (let done = 0; done < length; ) {
      const held = socketIntoPipe(this.#socketFd, this.#pipe.writeFd, Math.min(length - done, INPUT_BYTES));
      if (held <= 0) return done;
      const written = this.#image.writeFromPipe(offsetBytes + done, held, this.#pipe.readFd);
      done += written;
      if (written < held) {
        input.makeRoom();
        readWhole(this.#pipe.readFd, input.bytes, input.end, held - written);
        input.end += held - written;
        return done;
      }
    }
    return length;
  }

  close(): void {
    if (typeof this.#pipe !== 'object') return;
    closeSync(this.#pipe.readFd);
    closeSync(this.#pipe.writeFd);
    this.#pipe = undefined;
  }

  #isWorthIt(): boolean {
    return this.#image.takesPipes && availableParallelism() > 1 && isUnixSocket(this.#socketFd);
  }
}

function openPipe(): Pipe | undefined {
  const pipe = makePipe();
  if (pipe === undefined || growPipe(pipe, PIPE_BYTES) >= PIPE_BYTES) return pipe;
  closeSync(pipe.readFd);
  closeSync(pipe.writeFd);
  return undefined;
}

/** The pipe holds them all. */
function readWhole(pipeReadFd: number, target: Uint8Array, at: number, length: number): void {
  for (let done = 0; done < length; ) done += readSync(pipeReadFd, target, at + done, length - done, null);
}
