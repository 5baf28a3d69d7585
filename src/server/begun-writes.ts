import { BEGUN_MAX } from '../image/begun-writes.js';
import { type Image, IS_FULL, NOT_BEGUN } from '../image/image.js';
import { NBD_CMD_FLAG_FUA } from '../protocol/constants.js';
import { replyError } from '../protocol/reply.js';
import type { Request } from '../protocol/request.js';
import { KeptRequests } from './kept-requests.js';
import type { OnItsWay, Replies } from './replies.js';

/**
 * WRITEs that an image does at the same time: each is answered when it is done. While there are any, other connections may have to
 * wait: so they are brought to their end before a client is waited for.
 */
export class BegunWrites implements OnItsWay {
  readonly #image: Image;
  readonly #replies: Replies;
  readonly #begun = new KeptRequests(BEGUN_MAX);
  // A circle of those that are done and not answered, from #first on.
  readonly #doneTickets = new Int32Array(BEGUN_MAX);
  readonly #doneErrnos = new Int32Array(BEGUN_MAX);
  #first = 0;
  #done = 0;
  readonly #onWritten = (ticket: number, errno: number) => {
    this.#begun.letGo(ticket);
    const last = (this.#first + this.#done) % BEGUN_MAX;
    this.#doneTickets[last] = ticket;
    this.#doneErrnos[last] = errno;
    this.#done += 1;
  };

  constructor(image: Image, replies: Replies) {
    this.#image = image;
    this.#replies = replies;
    replies.sendBeside(this);
  }

  get isEmpty(): boolean {
    return this.#begun.count === 0;
  }

  /** For poll(2), if there are any: readable once `answerDone` has something to answer. */
  get fd(): number {
    return this.#image.begunWritesFd;
  }

  /** False: the image has others to finish first, or this is a write by itself. The data lie in `source`, from `at` on. */
  begin(request: Readonly<Request>, source: Uint8Array, at: number): boolean {
    const { flags, offsetBytes, lengthBytes } = request;
    if (lengthBytes === 0 || (flags & NBD_CMD_FLAG_FUA) !== 0) return false;
    let ticket = this.#image.beginWrite(offsetBytes, lengthBytes, source, at);
    while (ticket === IS_FULL) {
      this.#take(1);
      ticket = this.#image.beginWrite(offsetBytes, lengthBytes, source, at);
    }
    if (ticket === NOT_BEGUN) return false;
    this.#begun.keep(ticket, request);
    return true;
  }

  /** Whether one of them writes to the range of a request, which is to see it. */
  overlaps(request: Readonly<Request>): boolean {
    return this.#begun.overlaps(request);
  }

  /** Sees that all are on their way, and answers those that are done. */
  answerDone(): void {
    this.#take(0);
  }

  /** Waits for all of them, and answers. */
  finish(): void {
    this.#take(this.#begun.count);
  }

  settle(): void {
    if (this.#begun.count > 0) this.#image.takeWrites(this.#begun.count, this.#onWritten);
  }

  /** A reply may be sent at once, and so bring others to their end. */
  answerSettled(): boolean {
    const any = this.#done > 0;
    while (this.#done > 0) {
      const request = this.#begun.at(this.#doneTickets[this.#first] ?? 0);
      const errno = this.#doneErrnos[this.#first] ?? 0;
      this.#first = (this.#first + 1) % BEGUN_MAX;
      this.#done -= 1;
      if (request !== undefined) this.#replies.reply(request, replyError(errno, request));
    }
    return any;
  }

  #take(waitFor: number): void {
    if (this.#begun.count === 0) return;
    if (waitFor > 0) this.#replies.send();
    this.#image.takeWrites(waitFor, this.#onWritten);
    this.answerSettled();
  }
}
