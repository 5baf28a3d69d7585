import type { Image } from '../image/image.js';
import type { Request } from '../protocol/request.js';
import { BegunReads } from './begun-reads.js';
import type { BegunWrites } from './begun-writes.js';
import type { ColdReads } from './cold-reads.js';
import type { Reads } from './reads.js';
import type { Replies } from './replies.js';
import type { RequestInput } from './request-input.js';

/** Answers READs: cached data at once, each in its turn; what a disk is waited for, as it comes. */
export class TimedReads {
  readonly #replies: Replies;
  readonly #reads: Reads;
  readonly #cold: ColdReads;
  readonly #input: RequestInput;
  readonly #begunWrites: BegunWrites | undefined;
  readonly #whileWaiting: () => void;
  readonly #begun: BegunReads;
  /** Of those that were begun, some were on their way at the same time. */
  #wereTogether = false;

  /** `whileWaiting` sends what is ready, and looks for what has come meanwhile. */
  constructor(
    image: Image,
    replies: Replies,
    reads: Reads,
    cold: ColdReads,
    input: RequestInput,
    begunWrites: BegunWrites | undefined,
    whileWaiting: () => void,
  ) {
    this.#replies = replies;
    this.#reads = reads;
    this.#cold = cold;
    this.#input = input;
    this.#begunWrites = begunWrites;
    this.#whileWaiting = whileWaiting;
    this.#begun = new BegunReads(image, replies, reads);
  }

  /** Or begins: then `answerDone` answers it. What is cached may wait for others, until `sendTogether` of reads. */
  answer(request: Readonly<Request>): void {
    const cold = this.#cold;
    if (this.#begunWrites?.overlaps(request) === true) this.#begunWrites.finish();
    if (!cold.isTimed()) {
      this.#reads.answerTogether(request);
      return;
    }
    this.#reads.sendTogether();
    const isAlone = cold.isCold && this.#isAlone() && cold.isLonely();
    if (cold.isCold && !isAlone) {
      if (this.#begins(request)) return;
      this.answerDone();
      cold.announce(this.#begun.areAvailable);
    }
    // What is sent to make room waits for the client, perhaps.
    if (this.#replies.sendUnlessFits(request.lengthBytes)) cold.mayHaveSlept();
    cold.begins();
    const begin = performance.now();
    this.#reads.answerTogether(request);
    const elapsedMs = performance.now() - begin;
    this.#reads.sendTogether(); // which may wait for the client
    if (cold.wasSlow(elapsedMs, request.lengthBytes) && !isAlone) this.#lookAround();
  }

  /** For poll(2): readable once `answerDone` has something to answer; -1 where nothing was begun. */
  get fd(): number {
    return this.#begun.isEmpty ? -1 : this.#begun.fd;
  }

  /** Sees that all that were begun are on their way, and answers those that are done. */
  answerDone(): void {
    if (this.#begun.isEmpty) return;
    this.#begun.answerDone();
    if (this.#begun.isEmpty) this.#cold.looked(this.#wereTogether);
    else this.#cold.sawDisk();
  }

  /** Waits for all that were begun, and answers. */
  finish(): void {
    this.#begun.finish();
  }

  /** Before a request that may change what it names: READs that have come earlier do not see that. */
  before(request: Readonly<Request>): void {
    this.#reads.sendTogether();
    this.#cold.mayHaveSlept();
    if (this.#begun.overlaps(request)) this.finish();
    else this.answerDone();
  }

  /** The client was waited for. */
  received(): void {
    this.#cold.mayHaveSlept();
  }

  /** Gives memory back: there will be none for a while. */
  relax(): void {
    this.#begun.relax();
  }

  close(): void {
    this.#begun.close();
  }

  #begins(request: Readonly<Request>): boolean {
    const isFirst = this.#begun.isEmpty;
    if (!this.#begun.begin(request)) return false;
    this.#wereTogether = !isFirst;
    if (!isFirst) this.#cold.looked(true);
    return true;
  }

  /** Whether no request is there beside this one, which was not announced yet. */
  #isAlone(): boolean {
    return !this.#hasMore() && this.#begun.isEmpty && this.#input.lookedAt < this.#input.start;
  }

  #lookAround(): void {
    this.#whileWaiting();
    this.#cold.looked(this.#hasMore());
  }

  #hasMore(): boolean {
    return this.#input.holdsHeader(this.#input.start);
  }
}
