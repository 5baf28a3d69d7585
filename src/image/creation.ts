import { ftruncateSync } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import { errnoText } from '../kernel/errno.js';
import { fallocate } from '../kernel/fd-calls.js';
import { ImageError, reasonOf } from './errors.js';
import { fileCalls } from './file-calls.js';
import { writeAll } from './whole-calls.js';

const pieceBytes = 1_048_576;

/** Who waits for an image. */
export interface CreationWatch {
  /** Aborted when it is no longer wanted. */
  readonly stop: AbortSignal;
  /** Told once how large the disk will be, before anything is made, and what the user should know, a sentence each. */
  readonly onBegin: (sizeBytes: number, notices: readonly string[]) => void;
  /** Told now and then while all of it is written. */
  readonly onProgress: (doneBytes: number, totalBytes: number) => void;
}

/** A file in the making; what cannot be done throws an ImageError that names it. */
export class FileInTheMaking {
  readonly #path: string;
  readonly #fd: number;
  readonly #watch: CreationWatch;

  constructor(path: string, fd: number, watch: CreationWatch) {
    this.#path = path;
    this.#fd = fd;
    this.#watch = watch;
  }

  write(offsetBytes: number, bytes: Uint8Array): void {
    const errno = writeAll(fileCalls, this.#fd, offsetBytes, bytes.length, bytes, 0);
    if (errno !== 0) throw this.#error(offsetBytes + bytes.length, errnoText(errno));
  }

  resize(sizeBytes: number): void {
    try {
      ftruncateSync(this.#fd, sizeBytes);
    } catch (cause) {
      throw this.#error(sizeBytes, reasonOf(cause), cause);
    }
  }

  reserve(offsetBytes: number, lengthBytes: number): void {
    if (lengthBytes === 0) return;
    const result = fallocate(this.#fd, 0, offsetBytes, lengthBytes);
    if (result < 0)
      throw new ImageError('system', `cannot reserve ${lengthBytes} bytes for ${this.#path}: ${errnoText(-result)}`);
  }

  async writeZeroes(offsetBytes: number, lengthBytes: number): Promise<void> {
    const zeroes = new Uint8Array(Math.min(pieceBytes, lengthBytes));
    for (let done = 0; done < lengthBytes; ) {
      const piece = zeroes.subarray(0, Math.min(zeroes.length, lengthBytes - done));
      this.write(offsetBytes + done, piece);
      done += piece.length;
      this.#watch.onProgress(done, lengthBytes);
      await this.mayStop();
    }
  }

  /** To be awaited between pieces: a signal is heard of only between two turns of the event loop. */
  async mayStop(): Promise<void> {
    await turn();
    if (this.#watch.stop.aborted) throw new ImageError('interrupted', `interrupted; did not make ${this.#path}`);
  }

  #error(sizeBytes: number, reason: string, cause?: unknown): ImageError {
    return new ImageError('system', `cannot make ${this.#path} ${sizeBytes} bytes large: ${reason}`, { cause });
  }
}

/** Gives a new file the storage that is wanted of it, all of it zeroes. */
export async function fillRaw(
  file: FileInTheMaking,
  sizeBytes: number,
  preallocation: 'off' | 'falloc' | 'full',
): Promise<void> {
  if (preallocation === 'full') await file.writeZeroes(0, sizeBytes);
  if (preallocation === 'falloc') file.reserve(0, sizeBytes);
  file.resize(sizeBytes);
}
