import type { Image } from '../image/image.js';
import { NBD_CMD_FLAG_REQ_ONE } from '../protocol/constants.js';
import { ALLOCATION_DEPTH, type MetaContext } from '../protocol/meta-context.js';
import { replyError } from '../protocol/reply.js';
import type { Request } from '../protocol/request.js';
import { allocationState, depthState, Extents } from './extents.js';
import type { Replies } from './replies.js';

/** Extents in one reply; a client asks on from where it ends (proto.md: at most 2^20). */
const EXTENTS_MAX = 1_024;

/** What one of the contexts that a client chose has to tell. */
interface ContextExtents {
  readonly id: number;
  readonly extents: Extents;
  count: number;
}

/** Answers BLOCK_STATUS requests that are in order (request-rules): a chunk for each context that the client chose. */
export class StatusReplies {
  readonly #replies: Replies;
  readonly #contexts: readonly ContextExtents[];

  constructor(image: Image, replies: Replies, contexts: readonly MetaContext[]) {
    this.#replies = replies;
    this.#contexts = contexts.map(({ id }) => {
      const stateOf = id === ALLOCATION_DEPTH.id ? depthState : allocationState;
      return { id, extents: new Extents(image, EXTENTS_MAX, stateOf), count: 0 };
    });
  }

  /** An error is told in place of all: so nothing is sent before all are found. */
  answer(request: Readonly<Request>): void {
    const { offsetBytes, lengthBytes, flags } = request;
    const extentsMax = (flags & NBD_CMD_FLAG_REQ_ONE) !== 0 ? 1 : EXTENTS_MAX;
    for (const context of this.#contexts) {
      context.count = context.extents.find(offsetBytes, lengthBytes, extentsMax);
      if (context.count < 0) {
        this.#replies.reply(request, replyError(-context.count, request));
        return;
      }
    }
    this.#contexts.forEach(({ id, extents, count }, index) => {
      const isLast = index === this.#contexts.length - 1;
      this.#replies.status(request, id, count, extents.lengths, extents.states, isLast);
    });
  }
}
