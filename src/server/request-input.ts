import { alignedMemory, forget, PAGE_ALIGNMENT_BYTES } from '../kernel/memory.js';
import { NBD_EXTENDED_REQUEST_BYTES, NBD_REQUEST_BYTES } from '../protocol/constants.js';
import type { ReplyStyle } from '../protocol/reply.js';
import { decodeExtendedRequest, decodeRequest, type Request } from '../protocol/request.js';

/** A larger WRITE goes to the image in pieces of this size as it arrives. */
export const INPUT_BYTES = 1_048_576;

/**
 * What a client sent and nobody has taken yet: the bytes from `start` to `end` of one buffer, which is filled by reads of
 * as much as there is.
 */
export class RequestInput {
  readonly bytes = alignedMemory(INPUT_BYTES, PAGE_ALIGNMENT_BYTES);
  /** Of the bytes before a request's data. */
  readonly headerBytes: number;
  start = 0;
  end = 0;
  /** Up to here somebody has looked ahead; moves with the bytes. */
  lookedAt = 0;
  readonly #view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
  readonly #decode: (view: DataView, at: number, request: Request) => boolean;

  constructor(replyStyle: ReplyStyle, received: Uint8Array) {
    const extended = replyStyle === 'extended';
    this.headerBytes = extended ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES;
    this.#decode = extended ? decodeExtendedRequest : decodeRequest;
    this.bytes.set(received);
    this.end = received.length;
  }

  get length(): number {
    return this.end - this.start;
  }

  /** Whether a request's header is there as a whole from `at` on. */
  holdsHeader(at: number): boolean {
    return this.end - at >= this.headerBytes;
  }

  /** Decodes the header at `at`; false where something else begins. */
  decode(at: number, request: Request): boolean {
    return this.#decode(this.#view, at, request);
  }

  /** Gives the buffer's memory back, if nothing is in it. */
  relax(): void {
    if (this.start === this.end) forget(this.bytes);
  }

  /** Moves what is there to the front, so that as much as possible can be received behind it. */
  makeRoom(): void {
    if (this.start === 0) return;
    this.bytes.copyWithin(0, this.start, this.end);
    this.end -= this.start;
    this.lookedAt -= this.start;
    this.start = 0;
  }
}
