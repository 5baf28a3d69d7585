/**
 * What every image format offers a worker. All calls block; offsets and lengths are bytes, checked by the caller
 * (protocol/request-rules) against `sizeBytes`; buffers stay the caller's. A call answers 0 or a positive Linux errno and
 * throws nothing.
 */
export interface Image {
  /** What clients see: a multiple of 512, at most 2^53 - 1. */
  readonly sizeBytes: number;
  readonly readOnly: boolean;

  /** Fills `target` from `at` on with `length` bytes of the image. */
  read(offsetBytes: number, length: number, target: Uint8Array, at: number): number;
  /** With `durable` (FUA) the bytes are on stable storage before the answer. */
  write(offsetBytes: number, length: number, source: Uint8Array, at: number, durable: boolean): number;
  /** Makes the range read as zeroes; without `mayPunch` (NO_HOLE) its storage stays allocated. */
  zero(offsetBytes: number, length: number, mayPunch: boolean, durable: boolean): number;
  /** Gives the range's storage back where that is possible; afterwards its content is zeroes or what it was. */
  trim(offsetBytes: number, length: number, durable: boolean): number;
  /** Answers after every write that was answered before, on any connection, is on stable storage. */
  flush(): number;
  /** Lets go of what this worker holds of the image; the opener's handle stays. */
  close(): void;
}
