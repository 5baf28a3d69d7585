import type { DataPlace, Extent, Image } from './image.js';
import { ImageFilter } from './image-filter.js';

/** A part of an image's disk, in bytes of it. */
export interface ImagePart {
  readonly offsetBytes: number;
  readonly sizeBytes: number;
}

/** A part of an image, as an image of its own: what is outside cannot be reached. */
export class PartImage extends ImageFilter {
  override readonly sizeBytes: number;
  readonly #startBytes: number;

  constructor(lower: Image, { offsetBytes, sizeBytes }: ImagePart) {
    super(lower);
    this.#startBytes = offsetBytes;
    this.sizeBytes = sizeBytes;
  }

  override read(offsetBytes: number, length: number, target: Uint8Array, at: number): number {
    return this.lower.read(this.#startBytes + offsetBytes, length, target, at);
  }

  override write(offsetBytes: number, length: number, source: Uint8Array, at: number, durable: boolean): number {
    return this.lower.write(this.#startBytes + offsetBytes, length, source, at, durable);
  }

  override get beginsWrites(): boolean {
    return this.lower.beginsWrites;
  }

  override beginWrite(offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    return this.lower.beginWrite(this.#startBytes + offsetBytes, length, source, at);
  }

  override zero(offsetBytes: number, length: number, ways: number, durable: boolean): number {
    return this.lower.zero(this.#startBytes + offsetBytes, length, ways, durable);
  }

  override trim(offsetBytes: number, length: number, durable: boolean): number {
    return this.lower.trim(this.#startBytes + offsetBytes, length, durable);
  }

  override status(offsetBytes: number, length: number, extent: Extent): number {
    return this.lower.status(this.#startBytes + offsetBytes, length, extent);
  }

  override findPlace(offsetBytes: number, length: number, place: DataPlace): boolean {
    return this.lower.findPlace(this.#startBytes + offsetBytes, length, place);
  }

  override readIntoPipe(offsetBytes: number, length: number, pipeFd: number): number {
    return this.lower.readIntoPipe(this.#startBytes + offsetBytes, length, pipeFd);
  }

  override cache(offsetBytes: number, length: number): number {
    return this.lower.cache(this.#startBytes + offsetBytes, length);
  }
}
