import { ImageFilter } from './image-filter.js';

/** Every change is on stable storage when it is answered, whether the client asked for that or not. */
export class WritethroughImage extends ImageFilter {
  override write(offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    return this.lower.write(offsetBytes, length, source, at, true);
  }

  override zero(offsetBytes: number, length: number, ways: number): number {
    return this.lower.zero(offsetBytes, length, ways, true);
  }

  override trim(offsetBytes: number, length: number): number {
    return this.lower.trim(offsetBytes, length, true);
  }
}
