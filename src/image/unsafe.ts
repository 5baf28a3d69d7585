import { ImageFilter } from './image-filter.js';

/** Nothing waits for stable storage: a FLUSH is answered at once, and FUA is ignored. For images that can be lost. */
export class UnsafeImage extends ImageFilter {
  override write(offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    return this.lower.write(offsetBytes, length, source, at, false);
  }

  override zero(offsetBytes: number, length: number, ways: number): number {
    return this.lower.zero(offsetBytes, length, ways, false);
  }

  override trim(offsetBytes: number, length: number): number {
    return this.lower.trim(offsetBytes, length, false);
  }

  override flush(): number {
    return 0;
  }

  override beginFlush(): boolean {
    return false;
  }
}
