import { setTimeout as sleep } from 'node:timers/promises';
import { ServerError } from './errors.js';

/** Clients served at a time where nobody says fewer: each has a thread of its own. */
export const CLIENTS_MAX = 1024;
/**
 * How long one too many waits for a place before it is told: a client that comes right behind another must not be refused
 * because that one's thread has not ended yet.
 */
const PLACE_WAIT_MS = 500;
const PLACE_CHECK_MS = 10;

/** How many clients are served at a time. */
export class Places {
  readonly #max: number;
  #taken = 0;

  constructor(max: number | undefined) {
    this.#max = max ?? CLIENTS_MAX;
  }

  /** Whoever comes; it holds nothing until it takes its place. */
  newcomer(): Place {
    return new Place(
      () => this.#refusal(),
      (change) => (this.#taken += change),
    );
  }

  #refusal(): string | undefined {
    if (this.#taken < this.#max) return undefined;
    const clients = this.#max === 1 ? 'a client is' : `${this.#max} clients are`;
    return `${clients} served already, no more are allowed`;
  }
}

/** One client's place, from accept on. */
export class Place {
  readonly #whyNone: () => string | undefined;
  readonly #count: (change: 1 | -1) => void;
  #isTaken = false;
  #told: ServerError | undefined;

  constructor(whyNone: () => string | undefined, count: (change: 1 | -1) => void) {
    this.#whyNone = whyNone;
    this.#count = count;
  }

  /** The error that the client was told of, if it was refused. */
  get told(): ServerError | undefined {
    return this.#told;
  }

  /** Resolves when a place is free, and soon in any case. */
  async soon(): Promise<void> {
    for (let waitedMs = 0; waitedMs < PLACE_WAIT_MS && this.#whyNone() !== undefined; waitedMs += PLACE_CHECK_MS) {
      await sleep(PLACE_CHECK_MS);
    }
  }

  /** Why the client gets no place now, for it to be told. */
  refusal(): string | undefined {
    const why = this.#whyNone();
    this.#told = why === undefined ? undefined : new ServerError('refused', why);
    return why;
  }

  /** To be called in the turn in which `refusal` gave no reason against it. */
  take(): void {
    this.#isTaken = true;
    this.#count(1);
  }

  /** Frees the place if it was taken. */
  leave(): void {
    if (this.#isTaken) this.#count(-1);
    this.#isTaken = false;
  }
}
