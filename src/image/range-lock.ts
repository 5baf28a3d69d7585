import { invariant } from '../base/invariant.js';
import {
  RANGE_FIELDS,
  RANGES_LOCK,
  RANGES_MAX,
  RANGES_TURNS,
  RANGES_WAITING,
  rangeTable,
  type SharedFields,
} from './shared-layout.js';
import { SharedLock } from './shared-lock.js';

// What a range of the table is held as.
const FREE = 0;
const SHARED = 1;
const ALONE = 2;

/**
 * Keeps the writing of a part of a block, which reads the block, changes it and writes it back, apart from every other
 * change of that block, by all workers of an image: what another wrote in between would be lost. Changes of whole blocks
 * share their ranges with each other. A change that takes long holds up only what overlaps it.
 */
export class RangeLock {
  readonly #fields: SharedFields;
  readonly #table: Float64Array<SharedArrayBuffer>;
  readonly #lock: SharedLock;
  /** The row of the range that this worker holds. */
  #held = -1;

  constructor(fields: SharedFields) {
    this.#fields = fields;
    this.#table = rangeTable(fields);
    this.#lock = new SharedLock(fields, RANGES_LOCK);
  }

  /** For a change of whole blocks. */
  share(offsetBytes: number, length: number): void {
    this.#take(SHARED, offsetBytes, offsetBytes + length);
  }

  /** For a change of a part of the block at `offsetBytes`. */
  takeAlone(offsetBytes: number, length: number): void {
    this.#take(ALONE, offsetBytes, offsetBytes + length);
  }

  /** Whether somebody waits for a range: who takes large ones again and again lets him through. */
  get isAwaited(): boolean {
    return Atomics.load(this.#fields, RANGES_WAITING) !== 0;
  }

  release(): void {
    this.#lock.take();
    this.#table[this.#held * RANGE_FIELDS] = FREE;
    this.#lock.leave();
    this.#held = -1;
    Atomics.add(this.#fields, RANGES_TURNS, 1);
    Atomics.notify(this.#fields, RANGES_TURNS);
  }

  /** A turn that came after the look is not waited for. */
  #take(as: number, begin: number, end: number): void {
    invariant(this.#held === -1, 'a worker holds one range at a time');
    this.#held = this.#tryToTake(as, begin, end);
    if (this.#held !== -1) return;
    Atomics.add(this.#fields, RANGES_WAITING, 1);
    while (this.#held === -1) {
      const turn = Atomics.load(this.#fields, RANGES_TURNS);
      this.#held = this.#tryToTake(as, begin, end);
      if (this.#held === -1) Atomics.wait(this.#fields, RANGES_TURNS, turn);
    }
    Atomics.sub(this.#fields, RANGES_WAITING, 1);
  }

  /** Answers a row of the table, or −1. */
  #tryToTake(as: number, begin: number, end: number): number {
    this.#lock.take();
    const row = this.#freeRow(as, begin, end);
    if (row !== -1) {
      const at = row * RANGE_FIELDS;
      this.#table[at] = as;
      this.#table[at + 1] = begin;
      this.#table[at + 2] = end;
    }
    this.#lock.leave();
    return row;
  }

  /** −1 when there is none, or when another range is in the way. */
  #freeRow(as: number, begin: number, end: number): number {
    let free = -1;
    for (let row = 0; row < RANGES_MAX; row += 1) {
      const at = row * RANGE_FIELDS;
      const held = this.#table[at];
      if (held === FREE) free = row;
      else if ((held === ALONE || as === ALONE) && this.#overlaps(at, begin, end)) return -1;
    }
    return free;
  }

  #overlaps(at: number, begin: number, end: number): boolean {
    const { [at + 1]: otherBegin = 0, [at + 2]: otherEnd = 0 } = this.#table;
    return otherBegin < end && begin < otherEnd;
  }
}
