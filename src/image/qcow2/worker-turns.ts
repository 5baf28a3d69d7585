import { invariant } from '../../base/invariant.js';
import { LENT_BYTES_MAX } from '../image.js';
import { sharedWords } from './slice-cache.js';

/** Workers of one image at a time. */
const WORKERS_MAX = 2_048;

/** Reads that are on their way stay bound to the places that were found for them. */
export const HOLDS_PLACES = 1;
/** Clusters are lent to a pipe, until whoever reads the socket behind it has them: those in `lent`. */
export const HOLDS_PIPED = 2;
/** Writes that are on their way stay bound to theirs. */
export const HOLDS_WRITES = 4;
/** Others wait until all places are let go: no more are to be held before. */
const PLACES_AWAITED = 8;

/** Pieces of the file that a worker lends at a time: of 64 KiB each as many as may be on their way. More are copied. */
const LENT_MAX = 512;
const LENT_NUMBERS = 3;

/**
 * Int32 fields, one a worker:
 *
 * | field | who writes | meaning |
 * | --- | --- | --- |
 * | claims | the worker, when it begins and ends | 1: the row is somebody's |
 * | turns | the worker | odd while it works on a request; wraps around |
 * | holds | the worker, and others what they wait for | HOLDS_… bits, and PLACES_AWAITED |
 * | seen | under the image's lock | turns, when clusters began to wait for being free |
 * | lentFrom, lentTo | the worker | which entries of its ring in `lent` count; they wrap around |
 *
 * `lent` has LENT_MAX entries a worker, which it writes before its turn ends: first cluster, the one behind the last, and how
 * many bytes it has lent until then.
 */
export interface TurnsMemory {
  readonly claims: Int32Array<SharedArrayBuffer>;
  readonly turns: Int32Array<SharedArrayBuffer>;
  readonly holds: Int32Array<SharedArrayBuffer>;
  readonly seen: Int32Array<SharedArrayBuffer>;
  readonly lentFrom: Int32Array<SharedArrayBuffer>;
  readonly lentTo: Int32Array<SharedArrayBuffer>;
  readonly lent: Float64Array<SharedArrayBuffer>;
}

export function newTurnsMemory(): TurnsMemory {
  const words = () => sharedWords(WORKERS_MAX);
  const lent = new Float64Array(
    new SharedArrayBuffer(WORKERS_MAX * LENT_MAX * LENT_NUMBERS * Float64Array.BYTES_PER_ELEMENT),
  );
  return { claims: words(), turns: words(), holds: words(), seen: words(), lentFrom: words(), lentTo: words(), lent };
}

/**
 * Tells when no worker can still use what it found before: a cluster that was dropped is free only then. A worker that is
 * between two requests, or has begun another since, has forgotten all that it found.
 */
export class WorkerTurns {
  readonly #memory: TurnsMemory;
  readonly #row: number;
  /** So many were lent in all, those that did not get into the pipe taken off again. */
  lentBytes = 0;

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

  /**
   * Within a turn, before a look at a table for a place. False: others wait until all places are let go, and this worker, who may
   * always have some under way, finds no more before.
   */
  holdPlaces(what: typeof HOLDS_PLACES | typeof HOLDS_WRITES): boolean {
    const { holds } = this.#memory;
    const held = Atomics.load(holds, this.#row);
    if ((held & PLACES_AWAITED) !== 0) {
      if (holdsPlaces(held)) return false;
      Atomics.and(holds, this.#row, ~PLACES_AWAITED);
    }
    Atomics.or(holds, this.#row, what);
    return true;
  }

  letGo(what: number): void {
    Atomics.and(this.#memory.holds, this.#row, ~what);
  }

  /**
   * Within a turn, before clusters are put into a pipe: they are not free until `takeBack`, or until so much has been lent after
   * them that they must have been read. False: it lends too many pieces.
   */
  lend(first: number, end: number, bytes: number): boolean {
    const { lent, lentFrom, lentTo } = this.#memory;
    const row = this.#row;
    let from = Atomics.load(lentFrom, row);
    const to = Atomics.load(lentTo, row);
    this.lentBytes += bytes;
    while (from !== to && this.lentBytes - (lent[entryAt(row, from) + 2] ?? 0) >= LENT_BYTES_MAX) from = (from + 1) | 0;
    Atomics.store(lentFrom, row, from);
    if (((to - from) | 0) === LENT_MAX) return false;
    const at = entryAt(row, to);
    lent[at] = first;
    lent[at + 1] = end;
    lent[at + 2] = this.lentBytes;
    Atomics.store(lentTo, row, (to + 1) | 0);
    Atomics.or(this.#memory.holds, row, HOLDS_PIPED);
    return true;
  }

  takeBack(): void {
    const { lentFrom, lentTo } = this.#memory;
    Atomics.store(lentFrom, this.#row, Atomics.load(lentTo, this.#row));
    this.letGo(HOLDS_PIPED);
  }

  /** Whether any worker lends anything. */
  get areLent(): boolean {
    const { claims, holds } = this.#memory;
    return claims.some((claim, row) => claim !== 0 && (Atomics.load(holds, row) & HOLDS_PIPED) !== 0);
  }

  /** Under the image's lock, after `havePassed`: of what was dropped before `mark`, no worker lends more than these. */
  lentClusters(): ReadonlySet<number> {
    const { claims, holds, lentFrom, lentTo, lent } = this.#memory;
    const clusters = new Set<number>();
    for (let row = 0; row < WORKERS_MAX; row += 1) {
      if (Atomics.load(claims, row) === 0 || (Atomics.load(holds, row) & HOLDS_PIPED) === 0) continue;
      const to = Atomics.load(lentTo, row);
      for (let entry = Atomics.load(lentFrom, row); entry !== to; entry = (entry + 1) | 0) {
        const at = entryAt(row, entry);
        for (let cluster = lent[at] ?? 0; cluster < (lent[at + 1] ?? 0); cluster += 1) clusters.add(cluster);
      }
    }
    return clusters;
  }

  /** Under the image's lock: from here on is waited, for places too that are held now. What is found later is nothing that was dropped before. */
  mark(): void {
    const { turns, holds, seen } = this.#memory;
    for (let row = 0; row < WORKERS_MAX; row += 1) {
      seen[row] = Atomics.load(turns, row);
      if (holdsPlaces(Atomics.load(holds, row))) Atomics.or(holds, row, PLACES_AWAITED);
    }
  }

  /** Under the image's lock, in which the caller has forgotten what it found before. */
  havePassed(): boolean {
    const { claims, turns, holds, seen } = this.#memory;
    for (let row = 0; row < WORKERS_MAX; row += 1) {
      if (Atomics.load(claims, row) === 0) continue;
      const held = Atomics.load(holds, row);
      if (holdsPlaces(held) && (held & PLACES_AWAITED) !== 0) return false;
      if (row === this.#row) continue;
      const turn = Atomics.load(turns, row);
      if ((turn & 1) !== 0 && turn === seen[row]) return false;
    }
    return true;
  }

  /** What is still lent stays so, and the row with it, for who reads it need not be gone; and so do writes whose end nobody knows. */
  close(): void {
    const { claims, turns } = this.#memory;
    this.letGo(HOLDS_PLACES);
    if ((Atomics.load(turns, this.#row) & 1) !== 0) this.end();
    if (!this.#isHeld) Atomics.store(claims, this.#row, 0);
  }

  get #isHeld(): boolean {
    return (Atomics.load(this.#memory.holds, this.#row) & (HOLDS_PIPED | HOLDS_WRITES)) !== 0;
  }
}

function holdsPlaces(held: number): boolean {
  return (held & (HOLDS_PLACES | HOLDS_WRITES)) !== 0;
}

/** Where an entry of a worker's ring is. */
function entryAt(row: number, entry: number): number {
  return LENT_NUMBERS * (row * LENT_MAX + (entry & (LENT_MAX - 1)));
}
