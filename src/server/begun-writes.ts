import { BEGUN_MAX } from '../image/begun-writes.js';
import type { Image } from '../image/image.js';
import { NBD_CMD_FLAG_FUA } from '../protocol/constants.js';
import { replyError } from '../protocol/reply.js';
import { emptyRequest, type Request } from '../protocol/request.js';
import type { Replies } from './replies.js';

/** WRITEs that an image does at the same time: the answers come when the last is done. */
export class BegunWrites {
  readonly #image: Image;
  readonly #replies: Replies;
  readonly #requests = Array.from({ length: BEGUN_MAX }, emptyRequest);
  readonly #errnos = new Int32Array(BEGUN_MAX);
  #count = 0;

  constructor(image: Image, replies: Replies) {
    this.#image = image;
    this.#replies = replies;
  }

  get isEmpty(): boolean {
    return this.#count === 0;
  }

  /** False: the image has others to finish first, or this is a write by itself. The data lie in `source`, from `at` on. */
  begin(request: Readonly<Request>, source: Uint8Array, at: number): boolean {
    const { flags, offsetBytes, lengthBytes } = request;
    const kept = this.#requests[this.#count];
    if (kept === undefined || lengthBytes === 0 || (flags & NBD_CMD_FLAG_FUA) !== 0) return false;
    if (!this.#image.beginWrite(offsetBytes, lengthBytes, source, at)) return false;
    Object.assign(kept, request);
    this.#count += 1;
    return true;
  }

  /** Waits for all of them, and answers. */
  finish(): void {
    if (this.#count === 0) return;
    this.#image.finishWrites(this.#errnos);
    for (let index = 0; index < this.#count; index += 1) {
      const request = this.#requests[index];
      if (request !== undefined) this.#replies.reply(request, replyError(this.#errnos[index] ?? 0, request));
    }
    this.#count = 0;
  }
}
