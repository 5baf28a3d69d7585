import { constants } from 'node:os';
import { foreignFormat, MAGIC_BYTES } from './format-magic.js';
import type { Image } from './image.js';

const noTail = new Uint8Array(0);

/**
 * A raw image whose format nobody named: it was taken for raw because its first bytes are no other format's. A guest that
 * could change them would choose what the image is taken for next time, and by a qcow2 header which files of the host
 * belong to it. So a write that would do that is refused (EPERM); everything else goes to the raw image.
 */
export class GuessedRawImage implements Image {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly #raw: Image;
  readonly #head = new Uint8Array(MAGIC_BYTES);

  constructor(raw: Image) {
    this.sizeBytes = raw.sizeBytes;
    this.readOnly = raw.readOnly;
    this.#raw = raw;
  }

  read(offsetBytes: number, length: number, target: Uint8Array, at: number): number {
    return this.#raw.read(offsetBytes, length, target, at);
  }

  write(offsetBytes: number, length: number, source: Uint8Array, at: number, durable: boolean): number {
    const errno = offsetBytes < MAGIC_BYTES ? this.#checkHead(offsetBytes, length, source, at) : 0;
    return errno === 0 ? this.#raw.write(offsetBytes, length, source, at, durable) : errno;
  }

  zero(offsetBytes: number, length: number, mayPunch: boolean, durable: boolean): number {
    return this.#raw.zero(offsetBytes, length, mayPunch, durable);
  }

  trim(offsetBytes: number, length: number, durable: boolean): number {
    return this.#raw.trim(offsetBytes, length, durable);
  }

  flush(): number {
    return this.#raw.flush();
  }

  close(): void {
    this.#raw.close();
  }

  /** Looks at what the first bytes would be after the write: it may bring a part of them only. */
  #checkHead(offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    const errno = this.#raw.read(0, MAGIC_BYTES, this.#head, 0);
    if (errno !== 0) return errno;
    this.#head.set(source.subarray(at, at + Math.min(length, MAGIC_BYTES - offsetBytes)), offsetBytes);
    return foreignFormat(this.#head, noTail) === undefined ? 0 : constants.errno.EPERM;
  }
}
