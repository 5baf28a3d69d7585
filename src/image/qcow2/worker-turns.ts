import { invariant } from '../../base/invariant.js';
import { sharedWords } from './slice-cache.js';

/** Workers of one image at a time. */
const WORKERS_MAX = 2_048;

/** Reads that are on their way stay bound to the places that were found for them. */
export const HOLDS_PLACES = 1;
/** So do bytes that were lent to a pipe, until whoever reads the socket behind it has them. */
export const HOLDS_PIPED = 2;

/**
 * Int32 fields, one a worker:
 *
 * | field | who writes | meaning |
 * | --- | --- | --- |
 * | claims | the worker, when it begins and ends | 1: the row is somebody's |
 * | turns | the worker | odd while it works on a request; wraps around |
 * | holds | the worker | HOLDS_… bits |
 * | seen | under the image's lock | turns, when clusters began to wait for being free |
 */
export interface TurnsMemory {
  readonly claims: Int32Array<SharedArrayBuffer>;
  readonly turns: Int32Array<SharedArrayBuffer>;
  readonly holds: Int32Array<SharedArrayBuffer>;
  readonly seen: Int32Array<SharedArrayBuffer>;
}

export function newTurnsMemory(): TurnsMemory {
  const [claims, turns, holds, seen] = [0, 1, 2, 3].map(() => sharedWords(WORKERS_MAX));
  invariant(claims !== undefined && turns !== undefined, 'four were made');
  invariant(holds !== undefined && seen !== undefined, 'four were made');
  return { claims, turns, holds, seen };
}

/**
 * Tells when no worker can still use what it found before: a cluster that was dropped is free only then. A worker that is
 * between two requests, or has begun another since, has forgotten all that it found.
 */
export class WorkerTurns {
  readonly #memory: TurnsMemory;
  readonly #row: number;

  constructor(memory: TurnsMemory) {
    this.#memory = memory;
    this.#row = memory.claims.findIndex((_, row) => Atomics.compareExchange(memory.claims, row, 0, 1) === 0);
    invariant(this.#row >= 0, `an image has at most ${WORKERS_MAX} workers`);
  }

  /** Before a request's first look at a table. */
  begin(): void {
    Atomics.add(this.#memory.turns, this.#row, 1);
  }

  end(): void {
    Atomics.add(this.#memory.turns, this.#row, 1);
  }

  hold(what: number): void {
    Atomics.or(this.#memory.holds, this.#row, what);
  }

  letGo(what: number): void {
    Atomics.and(this.#memory.holds, this.#row, ~what);
  }

  /** Under the image's lock: from here on is waited. */
  mark(): void {
    const { turns, seen } = this.#memory;
    for (let row = 0; row < WORKERS_MAX; row += 1) seen[row] = Atomics.load(turns, row);
  }

  /** Under the image's lock, in which the caller has forgotten what it found before. */
  havePassed(): boolean {
    const { claims, turns, holds, seen } = this.#memory;
    for (let row = 0; row < WORKERS_MAX; row += 1) {
      if (Atomics.load(claims, row) === 0) continue;
      if (Atomics.load(holds, row) !== 0) return false;
      if (row === this.#row) continue;
      const turn = Atomics.load(turns, row);
      if ((turn & 1) !== 0 && turn === seen[row]) return false;
    }
    return true;
  }

  /** What is still lent stays so, and the row with it: who reads it need not be gone. */
  close(): void {
    const { claims, turns } = this.#memory;
    this.letGo(HOLDS_PLACES);
    if ((Atomics.load(turns, this.#row) & 1) !== 0) this.end();
    if (!this.#isHeld) Atomics.store(claims, this.#row, 0);
  }

  get #isHeld(): boolean {
    return Atomics.load(this.#memory.holds, this.#row) !== 0;
  }
}
