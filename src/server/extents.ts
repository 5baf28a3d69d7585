import { type Extent, emptyExtent, type Image } from '../image/image.js';
import { NBD_STATE_HOLE, NBD_STATE_ZERO } from '../protocol/constants.js';

/** What of an extent is told: a number, the same for those that are one. */
export type StateOf = (extent: Readonly<Extent>) => number;

export const zeroState: StateOf = ({ zero }) => (zero ? NBD_STATE_ZERO : 0);
export const allocationState: StateOf = ({ hole, zero }) => (hole ? NBD_STATE_HOLE : 0) | (zero ? NBD_STATE_ZERO : 0);
export const depthState: StateOf = ({ depth }) => depth;

/** What a range of an image is made of: extents in a row, neighbours of one state being one. */
export class Extents {
  readonly lengths: Float64Array;
  /** Of each, what `stateOf` says. */
  readonly states: Uint32Array;
  /** How much of the range the last `find` has told of: less than all where there are too many extents. */
  coveredBytes = 0;
  readonly #image: Image;
  readonly #stateOf: StateOf;
  readonly #extent = emptyExtent();

  constructor(image: Image, max: number, stateOf: StateOf) {
    this.lengths = new Float64Array(max);
    this.states = new Uint32Array(max);
    this.#image = image;
    this.#stateOf = stateOf;
  }

  /** Answers the number of extents, at most `max`, or −errno. */
  find(fromBytes: number, lengthBytes: number, max = this.lengths.length): number {
    let count = 0;
    this.coveredBytes = 0;
    while (this.coveredBytes < lengthBytes) {
      const at = fromBytes + this.coveredBytes;
      const errno = this.#image.status(at, lengthBytes - this.coveredBytes, this.#extent);
      if (errno !== 0) return -errno;
      const state = this.#stateOf(this.#extent);
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
