import type { Extent, Image } from '../image/image.js';
import { NBD_CMD_FLAG_REQ_ONE, NBD_STATE_HOLE, NBD_STATE_ZERO } from '../protocol/constants.js';
import type { MetaContext } from '../protocol/meta-context.js';
import { replyError } from '../protocol/reply.js';
import type { Request } from '../protocol/request.js';
import type { Replies } from './replies.js';

/** Extents in one reply; a client asks on from where it ends (proto.md: at most 2^20). */
const EXTENTS_MAX = 1_024;

/** Answers BLOCK_STATUS requests that are in order (request-rules): a chunk for each context that the client chose. */
export class StatusReplies {
  readonly #image: Image;
  readonly #replies: Replies;
  readonly #contexts: readonly MetaContext[];
  readonly #extent: Extent = { lengthBytes: 0, hole: false, zero: false };
  readonly #lengths = new Float64Array(EXTENTS_MAX);
  readonly #states = new Uint32Array(EXTENTS_MAX);

  constructor(image: Image, replies: Replies, contexts: readonly MetaContext[]) {
    this.#image = image;
    this.#replies = replies;
    this.#contexts = contexts;
  }

  answer(request: Readonly<Request>): void {
    const { offsetBytes, lengthBytes, flags } = request;
    const extentsMax = (flags & NBD_CMD_FLAG_REQ_ONE) !== 0 ? 1 : EXTENTS_MAX;
    const count = this.#findExtents(offsetBytes, lengthBytes, extentsMax);
    if (count < 0) this.#replies.reply(request, replyError(-count, request));
    else this.#tell(request, count);
  }

  #tell(request: Readonly<Request>, count: number): void {
    this.#contexts.forEach(({ id }, index) => {
      const last = index === this.#contexts.length - 1;
      this.#replies.status(request, id, count, this.#lengths, this.#states, last);
    });
  }

  /** Answers the number of extents, neighbours of one state being one, or −errno. */
  #findExtents(fromBytes: number, lengthBytes: number, extentsMax: number): number {
    let count = 0;
    for (let done = 0; done < lengthBytes; done += this.#extent.lengthBytes) {
      const errno = this.#image.status(fromBytes + done, lengthBytes - done, this.#extent);
      if (errno !== 0) return -errno;
      const state = (this.#extent.hole ? NBD_STATE_HOLE : 0) | (this.#extent.zero ? NBD_STATE_ZERO : 0);
      if (count > 0 && this.#states[count - 1] === state) {
        this.#lengths[count - 1] = (this.#lengths[count - 1] ?? 0) + this.#extent.lengthBytes;
        continue;
      }
      if (count === extentsMax) break;
      this.#lengths[count] = this.#extent.lengthBytes;
      this.#states[count] = state;
      count += 1;
    }
    return count;
  }
}
