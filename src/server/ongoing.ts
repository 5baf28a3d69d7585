import { constants } from 'node:os';
import type { Request } from '../protocol/request.js';
import type { BegunWrites } from './begun-writes.js';
import type { Flushes } from './flushes.js';
import type { PacedSocket } from './paced-socket.js';
import type { Replies } from './replies.js';
import type { TimedReads } from './timed-reads.js';

const { EAGAIN } = constants.errno;

/** What of a connection's requests goes on beside others: reads, and writes or a flush; each is answered when it is done. */
export class Ongoing {
  readonly #reads: TimedReads;
  readonly #writes: BegunWrites | undefined;
  readonly #flushes: Flushes;
  readonly #replies: Replies;

  constructor(reads: TimedReads, writes: BegunWrites | undefined, flushes: Flushes, replies: Replies) {
    this.#reads = reads;
    this.#writes = writes;
    this.#flushes = flushes;
    this.#replies = replies;
  }

  answerDone(): void {
    this.#reads.answerDone();
    this.answerDoneChanges();
  }

  answerDoneChanges(): void {
    if (this.#flushes.isBegun) this.#writes?.finish();
    else this.#writes?.answerDone();
    this.#flushes.answerDone();
  }

  /** Before a request that is done by itself: what has come earlier and matters to it is over. */
  before(request: Readonly<Request>): void {
    this.#writes?.finish();
    this.#reads.before(request);
  }

  /** Waits for all of it, and answers; nothing more will come. */
  close(): void {
    this.#writes?.finish();
    this.#reads.close();
    this.#flushes.finishAll();
  }

  /** Waits for bytes as long as anything goes on, and sends what is done. Answers as PacedSocket's receive; −EAGAIN: nothing goes on. */
  receive(socket: PacedSocket, target: Uint8Array, at: number, length: number): number {
    for (;;) {
      const readsFd = this.#reads.fd;
      const changesFd = this.#changesFd;
      if (readsFd < 0 && changesFd < 0) return -EAGAIN;
      const received = socket.receiveUnless(readsFd, changesFd, target, at, length);
      if (received !== -EAGAIN) return received;
      this.answerDone();
      this.#replies.send();
    }
  }

  /** Readable once a write that was begun, or a flush, is done; below 0 without one. Writes are brought to their end while a flush is begun. */
  get #changesFd(): number {
    if (this.#writes?.isEmpty === false) return this.#writes.fd;
    return this.#flushes.isBegun ? this.#flushes.fd : -1;
  }
}
