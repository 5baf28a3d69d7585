import { readSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { Image } from '../image/image.js';
import { closePipe, makeLargePipe, type Pipe, socketIntoPipe } from '../kernel/pipe-calls.js';
import { hasRoom, isUnixSocket } from '../kernel/socket-calls.js';
import { INPUT_BYTES, type RequestInput } from './request-input.js';
import { wholeBlocks } from './whole-blocks.js';

/** Of what has not come yet of a WRITE: from here on not copying it is worth the calls it takes. */
export const PIPED_WRITE_BYTES_MIN = 196_608;
/** Of the pipe: what a socket holds of a client fits, unless that is a large buffer of many small pieces. */
const PIPE_BYTES = 1_048_576;

/**
 * Large WRITEs with a copy less: what has come goes by reference from the socket into a pipe, and is copied from there into the
 * image.
 */
export class PipedWrites {
  /** Why the image has failed to write what `move` was called for last. */
  errno = 0;
  readonly #socketFd: number;
  readonly #image: Image;
  /** 'unused' until the first large write; absent where it cannot be done. */
  #pipe: Pipe | 'unused' | undefined = 'unused';

  constructor(socketFd: number, image: Image) {
    this.#socketFd = socketFd;
    this.#image = image;
  }

  get areAvailable(): boolean {
    if (this.#pipe === 'unused') this.#pipe = this.#isWorthIt() ? makeLargePipe(PIPE_BYTES) : undefined;
    return this.#pipe !== undefined;
  }

  /**
   * Waits for bytes, as a read of the socket does, and has the image write them, until `length` are written. Answers how many
   * are: where they are fewer, `input`, which was empty, may have some that are not written, and `errno` says why, or if that is 0 the
   * next read or write.
   */
  move(offsetBytes: number, length: number, input: RequestInput): number {
    const pipe = this.#pipe;
    if (typeof pipe !== 'object') return 0;
    // The data that somebody has looked past do not come there.
    input.lookedAt = Math.min(input.lookedAt, input.end);
    this.errno = 0;
    let done = 0;
    let held = 0;
    // Nobody would make room in a pipe that has none.
    while (done < length && (held === 0 || hasRoom(pipe.writeFd))) {
      const moved = socketIntoPipe(this.#socketFd, pipe.writeFd, Math.min(length - done, INPUT_BYTES) - held);
      if (moved <= 0) break;
      held += moved;
      const whole = wholeBlocks(offsetBytes + done, held, length - done);
      const answer = whole === 0 ? 0 : this.#image.writeFromPipe(offsetBytes + done, whole, pipe.readFd);
      const written = Math.max(0, answer);
      this.errno = written - answer;
      done += written;
      held -= written;
      if (written < whole) break;
    }
    if (held > 0) {
      input.makeRoom();
      readWhole(pipe.readFd, input.bytes, input.end, held);
      input.end += held;
    }
    return done;
  }

  close(): void {
    if (typeof this.#pipe !== 'object') return;
    closePipe(this.#pipe);
    this.#pipe = undefined;
  }

  #isWorthIt(): boolean {
    return this.#image.takesPipes && availableParallelism() > 1 && isUnixSocket(this.#socketFd);
  }
}

/** The pipe holds them all. */
function readWhole(pipeReadFd: number, target: Uint8Array, at: number, length: number): void {
  for (let done = 0; done < length; ) done += readSync(pipeReadFd, target, at + done, length - done, null);
}
