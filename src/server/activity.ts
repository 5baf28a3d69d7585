import { availableParallelism } from 'node:os';

/**
 * When each worker of a process was last busy: one Int32 field a worker, milliseconds of the wall clock modulo 2^32,
 * written by that worker alone and read by all. 0 is never.
 */
export type Activity = Int32Array<SharedArrayBuffer>;

/** A worker counts as busy for so long after its last sign. */
const BUSY_MS = 20;

export function newActivity(workersMax: number): Activity {
  return new Int32Array(new SharedArrayBuffer(workersMax * Int32Array.BYTES_PER_ELEMENT));
}

/** What a worker knows of how busy it and the others are. */
export class Busyness {
  readonly #activity: Activity;
  readonly #worker: number;
  readonly #spinnersMax = Math.floor(availableParallelism() / 2);

  constructor(activity: Activity, worker: number) {
    this.#activity = activity;
    this.#worker = worker;
  }

  /**
   * Notes that this worker is busy, and answers whether there is a core to spare for waiting awake: each client needs one
   * as well as its worker.
   */
  hasCoreToSpare(): boolean {
    if (this.#spinnersMax === 0) return false;
    const now = Date.now() | 0;
    Atomics.store(this.#activity, this.#worker, now);
    let busy = 0;
    for (let worker = 0; worker < this.#activity.length; worker += 1) {
      const last = Atomics.load(this.#activity, worker);
      if (last !== 0 && ((now - last) | 0) < BUSY_MS) busy += 1;
    }
    return busy <= this.#spinnersMax;
  }
}
