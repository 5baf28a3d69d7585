import { emptyExtent, type Image } from '../image/image.js';
import { NBD_STATE_HOLE, NBD_STATE_ZERO } from '../protocol/constants.js';

/** What a range of an image is made of: extents in a row, neighbours of one state being one. */
export class Extents {
  readonly lengths: Float64Array;
  /** Of each: NBD_STATE_HOLE, NBD_STATE_ZERO, or both. */
  readonly states: Uint32Array;
  /** How much of the range the last `find` has told of: less than all where there are too many extents. */
  coveredBytes = 0;
  readonly #image: Image;
  readonly #mask: number;
  readonly #extent = emptyExtent();

  /** `mask`: the states that are told apart. */
  constructor(image: Image, max: number, mask: number) {
    this.lengths = new Float64Array(max);
    this.states = new Uint32Array(max);
    this.#image = image;
    this.#mask = mask;
  }

  /** Answers the number of extents, at most `max`, or −errno. */
  find(fromBytes: number, lengthBytes: number, max = this.lengths.length): number {
    let count = 0;
    this.coveredBytes = 0;
    while (this.coveredBytes < lengthBytes) {
      const at = fromBytes + this.coveredBytes;
      const errno = this.#image.status(at, lengthBytes - this.coveredBytes, this.#extent);
      if (errno !== 0) return -errno;
      const { hole, zero } = this.#extent;
      const state = ((hole ? NBD_STATE_HOLE : 0) | (zero ? NBD_STATE_ZERO : 0)) & this.#mask;
      if (count === 0 || this.states[count - 1] !== state) {
        if (count === max) break;
        this.lengths[count] = 0;
        this.states[count] = state;
        count += 1;
      }
      this.lengths[count - 1] = (this.lengths[count - 1] ?? 0) + this.#extent.lengthBytes;
      this.coveredBytes += this.#extent.lengthBytes;
    }
    return count;
  }
}
