import { constants } from 'node:os';
import { foreignFormat, MAGIC_BYTES } from './format-magic.js';
import { NOT_BEGUN } from './image.js';
import { ImageFilter } from './image-filter.js';

const noTail = new Uint8Array(0);
const zeroes = new Uint8Array(MAGIC_BYTES);

/**
 * A raw image whose format nobody named: it was taken for raw because its first bytes are no other format's. A guest that
 * could change them would choose what the image is taken for next time, and by a qcow2 header which files of the host
 * belong to it. So a change that would do that is refused (EPERM); everything else goes to the raw image.
 */
export class GuessedRawImage extends ImageFilter {
  readonly #head = new Uint8Array(MAGIC_BYTES);

  override get beginsWrites(): boolean {
    return this.lower.beginsWrites;
  }

  override beginWrite(offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    return offsetBytes < MAGIC_BYTES ? NOT_BEGUN : this.lower.beginWrite(offsetBytes, length, source, at);
  }

  override write(offsetBytes: number, length: number, source: Uint8Array, at: number, durable: boolean): number {
    const errno = offsetBytes < MAGIC_BYTES ? this.#checkHead(offsetBytes, length, source, at) : 0;
    return errno === 0 ? this.lower.write(offsetBytes, length, source, at, durable) : errno;
  }

  override zero(offsetBytes: number, length: number, ways: number, durable: boolean): number {
    const errno = offsetBytes < MAGIC_BYTES ? this.#checkHead(offsetBytes, length, zeroes, 0) : 0;
    return errno === 0 ? this.lower.zero(offsetBytes, length, ways, durable) : errno;
  }

  /** Zeroes are a part of some formats' first bytes, and a trim may leave them. */
  override trim(offsetBytes: number, length: number, durable: boolean): number {
    const errno = offsetBytes < MAGIC_BYTES ? this.#checkHead(offsetBytes, length, zeroes, 0) : 0;
    return errno === 0 ? this.lower.trim(offsetBytes, length, durable) : errno;
  }

  /** Looks at what the first bytes would be after the change: it may bring a part of them only. */
  #checkHead(offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    const errno = this.lower.read(0, MAGIC_BYTES, this.#head, 0);
    if (errno !== 0) return errno;
    this.#head.set(source.subarray(at, at + Math.min(length, MAGIC_BYTES - offsetBytes)), offsetBytes);
    return foreignFormat(this.#head, noTail) === undefined ? 0 : constants.errno.EPERM;
  }
}
