import type { Request } from '../protocol/request.js';
import type { BegunWrites } from './begun-writes.js';
import type { ColdReads } from './cold-reads.js';
import type { Reads } from './reads.js';
import type { RequestInput } from './request-input.js';

/** Answers READs, each in its turn; while a disk is waited for, those behind it are on their way. */
export class TimedReads {
  readonly #reads: Reads;
  readonly #cold: ColdReads;
  readonly #input: RequestInput;
  readonly #begun: BegunWrites | undefined;
  readonly #whileWaiting: () => void;

  /** `whileWaiting` sends what is ready, and looks for what has come meanwhile. */
  constructor(
    reads: Reads,
    cold: ColdReads,
    input: RequestInput,
    begun: BegunWrites | undefined,
    whileWaiting: () => void,
  ) {
    this.#reads = reads;
    this.#cold = cold;
    this.#input = input;
    this.#begun = begun;
    this.#whileWaiting = whileWaiting;
  }

  answer(request: Readonly<Request>): void {
    const cold = this.#cold;
    if (this.#begun?.overlaps(request) === true) this.#begun.finish();
    if (!cold.isTimed()) {
      this.#reads.answer(request);
      return;
    }
    const isAlone = cold.isCold && this.#isAlone() && cold.isLonely();
    if (cold.isCold && !isAlone && !cold.announce()) {
      cold.sawDisk();
      this.#lookAround();
      cold.announce();
      this.#reads.answer(request);
      return;
    }
    const begin = performance.now();
    this.#reads.answer(request);
    if (cold.wasSlow(performance.now() - begin, request.lengthBytes) && !isAlone) this.#lookAround();
  }

  /** Whether no request is there behind this one, which was not announced yet. */
  #isAlone(): boolean {
    return !this.#hasMore() && this.#input.lookedAt < this.#input.start;
  }

  #lookAround(): void {
    this.#whileWaiting();
    this.#cold.looked(this.#hasMore());
  }

  #hasMore(): boolean {
    return this.#input.holdsHeader(this.#input.start);
  }
}
