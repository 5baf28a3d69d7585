import type { Image } from '../image/image.js';
import { replyError } from '../protocol/reply.js';
import { emptyRequest, type Request } from '../protocol/request.js';
import type { Replies } from './replies.js';

/** A flush that takes less has no disk to wait for, and is done soonest by itself. */
const SLOW_MS = 0.2;
/** FLUSHes of a client that are not answered; with more, what is behind them waits. */
const FLUSHES_MAX = 16;

/** FLUSHes that one flush of the image answers. */
interface Together {
  readonly requests: readonly Request[];
  count: number;
}

/**
 * Answers FLUSHes. One that waits for a disk goes on beside the requests behind it; those that come meanwhile are answered
 * together, by a flush that begins when it is done.
 */
export class Flushes {
  readonly #image: Image;
  readonly #replies: Replies;
  #begun = together();
  #waiting = together();
  #beganMs = 0;
  #isSlow = false;

  constructor(image: Image, replies: Replies) {
    this.#image = image;
    this.#replies = replies;
  }

  /** Whether a FLUSH is not answered yet. */
  get isBegun(): boolean {
    return this.#begun.count > 0;
  }

  /** For poll(2): readable once `finish` has something to answer. */
  get fd(): number {
    return this.#image.begunFlushFd;
  }

  answer(request: Readonly<Request>): void {
    while (this.#waiting.count === FLUSHES_MAX) this.finish();
    keep(this.#waiting, request);
    if (!this.isBegun) this.#next();
  }

  /** Answers what is done. */
  answerDone(): void {
    if (this.isBegun && this.#image.isFlushDone) this.finish();
  }

  /** Answers what was begun, after a wait if need be, and begins with those that have come meanwhile. */
  finish(): void {
    if (!this.isBegun) return;
    if (!this.#image.isFlushDone) this.#replies.send();
    this.#answer(this.#image.finishFlush());
    if (this.#waiting.count > 0) this.#next();
  }

  finishAll(): void {
    while (this.isBegun) this.finish();
  }

  #next(): void {
    [this.#begun, this.#waiting] = [this.#waiting, this.#begun];
    this.#beganMs = performance.now();
    if (this.#isSlow && this.#image.beginFlush()) return;
    // Stable storage takes long: what is answered already need not wait for it.
    this.#replies.send();
    this.#answer(this.#image.flush());
  }

  #answer(errno: number): void {
    this.#isSlow = performance.now() - this.#beganMs > SLOW_MS;
    const { requests, count } = this.#begun;
    this.#begun.count = 0;
    for (let index = 0; index < count; index += 1) {
      const request = requests[index];
      if (request !== undefined) this.#replies.reply(request, replyError(errno, request));
    }
  }
}

function together(): Together {
  return { requests: Array.from({ length: FLUSHES_MAX }, emptyRequest), count: 0 };
}

function keep(those: Together, request: Readonly<Request>): void {
  const kept = those.requests[those.count];
  if (kept === undefined) return;
  Object.assign(kept, request);
  those.count += 1;
}
