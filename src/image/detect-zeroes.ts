import { type Image, NOT_BEGUN } from './image.js';
import { ImageFilter } from './image-filter.js';

/** Compared piece by piece: so few stay in the processor's cache. */
const zeroes = Buffer.alloc(65_536);

/** A write whose bytes are all zeroes becomes a zeroing, which takes no storage or gives it back. */
export class DetectZeroesImage extends ImageFilter {
  readonly #ways: number;

  /** `ways`: ZERO_MAY_PUNCH or 0. */
  constructor(lower: Image, ways: number) {
    super(lower);
    this.#ways = ways;
  }

  override get beginsWrites(): boolean {
    return this.lower.beginsWrites;
  }

  override beginWrite(offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    return isZero(source, at, length) ? NOT_BEGUN : this.lower.beginWrite(offsetBytes, length, source, at);
  }

  override write(offsetBytes: number, length: number, source: Uint8Array, at: number, durable: boolean): number {
    return isZero(source, at, length)
      ? this.lower.zero(offsetBytes, length, this.#ways, durable)
      : this.lower.write(offsetBytes, length, source, at, durable);
  }
}

/** The first byte tells of most writes that they are not. */
function isZero(source: Uint8Array, at: number, length: number): boolean {
  if (source[at] !== 0) return false;
  for (let done = 0; done < length; done += zeroes.length) {
    const pieceBytes = Math.min(zeroes.length, length - done);
    if (zeroes.compare(source, at + done, at + done + pieceBytes, 0, pieceBytes) !== 0) return false;
  }
  return true;
}
