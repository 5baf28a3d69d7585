import type { Image } from '../image/image.js';
import { replyError } from '../protocol/reply.js';
import { emptyRequest, type Request } from '../protocol/request.js';
import type { Replies } from './replies.js';

/** A flush that takes less has no disk to wait for, and is done soonest by itself. */
const SLOW_MS = 0.2;

/** Answers FLUSHes. One that waits for a disk goes on beside the requests behind it, and is answered when it is done. */
export class Flushes {
  /** A FLUSH is not answered yet. */
  isBegun = false;
  readonly #image: Image;
  readonly #replies: Replies;
  readonly #request = emptyRequest();
  #beganMs = 0;
  #isSlow = false;

  constructor(image: Image, replies: Replies) {
    this.#image = image;
    this.#replies = replies;
  }

  answer(request: Readonly<Request>): void {
    this.finish();
    this.#beganMs = performance.now();
    if (this.#isSlow && this.#image.beginFlush()) {
      Object.assign(this.#request, request);
      this.isBegun = true;
      return;
    }
    // Stable storage takes long: what is answered already need not wait for it.
    this.#replies.send();
    this.#reply(request, this.#image.flush());
  }

  /** For poll(2): readable once the FLUSH that is not answered is done. */
  get fd(): number {
    return this.#image.begunFlushFd;
  }

  /** Answers what is done. */
  answerDone(): void {
    if (this.isBegun && this.#image.isFlushDone) this.finish();
  }

  /** Answers what was begun, after a wait if need be. */
  finish(): void {
    if (!this.isBegun) return;
    this.isBegun = false;
    if (!this.#image.isFlushDone) this.#replies.send();
    this.#reply(this.#request, this.#image.finishFlush());
  }

  #reply(request: Readonly<Request>, errno: number): void {
    this.#isSlow = performance.now() - this.#beganMs > SLOW_MS;
    this.#replies.reply(request, replyError(errno, request));
  }
}
