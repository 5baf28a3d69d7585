import type { Image } from '../image/image.js';
import { NBD_CMD_FLAG_REQ_ONE, NBD_STATE_HOLE, NBD_STATE_ZERO } from '../protocol/constants.js';
import type { MetaContext } from '../protocol/meta-context.js';
import { replyError } from '../protocol/reply.js';
import type { Request } from '../protocol/request.js';
import { Extents } from './extents.js';
import type { Replies } from './replies.js';

/** Extents in one reply; a client asks on from where it ends (proto.md: at most 2^20). */
const EXTENTS_MAX = 1_024;

/** Answers BLOCK_STATUS requests that are in order (request-rules): a chunk for each context that the client chose. */
export class StatusReplies {
  readonly #extents: Extents;
  readonly #replies: Replies;
  readonly #contexts: readonly MetaContext[];

  constructor(image: Image, replies: Replies, contexts: readonly MetaContext[]) {
    this.#extents = new Extents(image, EXTENTS_MAX, NBD_STATE_HOLE | NBD_STATE_ZERO);
    this.#replies = replies;
    this.#contexts = contexts;
  }

  answer(request: Readonly<Request>): void {
    const { offsetBytes, lengthBytes, flags } = request;
    const extentsMax = (flags & NBD_CMD_FLAG_REQ_ONE) !== 0 ? 1 : EXTENTS_MAX;
    const count = this.#extents.find(offsetBytes, lengthBytes, extentsMax);
    if (count < 0) this.#replies.reply(request, replyError(-count, request));
    else this.#tell(request, count);
  }

  #tell(request: Readonly<Request>, count: number): void {
    const { lengths, states } = this.#extents;
    this.#contexts.forEach(({ id }, index) => {
      this.#replies.status(request, id, count, lengths, states, index === this.#contexts.length - 1);
    });
  }
}
