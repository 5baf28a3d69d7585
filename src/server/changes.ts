import { type Image, ZERO_FAST, ZERO_MAY_PUNCH } from '../image/image.js';
import {
  NBD_CMD_CACHE,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
} from '../protocol/constants.js';
import type { Request } from '../protocol/request.js';
import type { Replies } from './replies.js';
import type { RequestInput } from './request-input.js';

/** Does the requests that change an image one at a time. */
export class Changes {
  /** Something may wait to be flushed. */
  hasWritten = false;
  readonly #image: Image;
  readonly #input: RequestInput;
  readonly #replies: Replies;

  constructor(image: Image, input: RequestInput, replies: Replies) {
    this.#image = image;
    this.#input = input;
    this.#replies = replies;
  }

  /** A WRITE's data begin at the input's start. Answers 0 or a positive errno. */
  make({ type, flags, offsetBytes, lengthBytes }: Readonly<Request>): number {
    const durable = (flags & NBD_CMD_FLAG_FUA) !== 0;
    // Stable storage takes long: what is answered already need not wait for it.
    if (durable) this.#replies.send();
    if (lengthBytes === 0) return 0;
    if (type === NBD_CMD_CACHE) return this.#image.cache(offsetBytes, lengthBytes);
    this.hasWritten = true;
    if (type === NBD_CMD_WRITE) {
      return this.#image.write(offsetBytes, lengthBytes, this.#input.bytes, this.#input.start, durable);
    }
    if (type === NBD_CMD_TRIM) return this.#image.trim(offsetBytes, lengthBytes, durable);
    return this.#image.zero(offsetBytes, lengthBytes, zeroWays(flags), durable);
  }
}

function zeroWays(flags: number): number {
  const mayPunch = (flags & NBD_CMD_FLAG_NO_HOLE) === 0 ? ZERO_MAY_PUNCH : 0;
  return mayPunch | ((flags & NBD_CMD_FLAG_FAST_ZERO) !== 0 ? ZERO_FAST : 0);
}
