/** How often a server is asked while it says nothing. An answer may take longer; the next question does not wait for it. */
const PAUSE_MS = 1_000;
/** How long it is left alone after an answer that shows that only its requests are slow. */
const CONTENT_MS = 10_000;

/** Asks a server, each time on a connection of its own, whether it answers. */
export class Probes {
  readonly #isAnswering: (stop: AbortSignal) => Promise<boolean>;
  readonly #ended: AbortSignal;
  #round = new AbortController();
  /** When the questions were asked that have no answer yet. */
  readonly #open = new Set<number>();
  #nextAt = 0;
  #isSilent = false;
  #answersSince: number | undefined;

  constructor(isAnswering: (stop: AbortSignal) => Promise<boolean>, ended: AbortSignal) {
    this.#isAnswering = isAnswering;
    this.#ended = ended;
  }

  /** A question had no answer: in its time, or before a later one had. */
  get isSilent(): boolean {
    return this.#isSilent;
  }

  /** Since when a server that was silent answers. */
  get answersSince(): number | undefined {
    return this.#isSilent ? this.#answersSince : undefined;
  }

  /** Asks, if it is time to. */
  ask(): void {
    const now = performance.now();
    if (now < this.#nextAt) return;
    this.#nextAt = now + PAUSE_MS;
    this.#open.add(now);
    const stop = AbortSignal.any([this.#round.signal, this.#ended]);
    void this.#isAnswering(stop).then((answers) => {
      // What the end has broken off is no silence.
      if (!stop.aborted) this.#hear(now, answers);
    });
  }

  /** Forgets everything. */
  reset(): void {
    if (this.#nextAt === 0) return;
    this.#round.abort();
    this.#round = new AbortController();
    this.#open.clear();
    this.#nextAt = 0;
    this.#isSilent = false;
    this.#answersSince = undefined;
  }

  #hear(askedAt: number, answers: boolean): void {
    this.#open.delete(askedAt);
    const isOvertaking = [...this.#open].some((earlier) => earlier < askedAt);
    if (!answers || isOvertaking) this.#isSilent = true;
    if (!answers) return;
    this.#answersSince ??= performance.now();
    if (!this.#isSilent) this.#nextAt = performance.now() + CONTENT_MS;
  }
}
