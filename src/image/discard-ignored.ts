import { ZERO_MAY_PUNCH } from './image.js';
import { ImageFilter } from './image-filter.js';

/** No storage is given back: a trim changes nothing, and what is zeroed stays allocated. */
export class DiscardIgnoredImage extends ImageFilter {
  override get beginsWrites(): boolean {
    return this.lower.beginsWrites;
  }

  override beginWrite(offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    return this.lower.beginWrite(offsetBytes, length, source, at);
  }

  override zero(offsetBytes: number, length: number, ways: number, durable: boolean): number {
    return this.lower.zero(offsetBytes, length, ways & ~ZERO_MAY_PUNCH, durable);
  }

  override trim(): number {
    return 0;
  }
}
