import { constants } from 'node:os';
import { type SharedFields, SYNC_FAILED, SYNC_LOCK, SYNCS_DONE, SYNCS_STARTED } from './shared-layout.js';

/**
 * Brings what was written to stable storage, for all workers of one opening of an image.
 *
 * The kernel tells of a lost write once, to the first sync of the open file that asks, and then calls the pages clean.
 * So one worker syncs at a time, and leaves the mark of a failure before another can ask and be told that all is well.
 * Those that waited meanwhile share one sync: it began after their writes.
 */
export class StableStorage {
  readonly #fields: SharedFields;
  readonly #sync: () => number;

  /** `sync` answers 0 or a positive errno. */
  constructor(fields: SharedFields, sync: () => number) {
    this.#fields = fields;
    this.#sync = sync;
  }

  /** A sync failed: what was acknowledged may be lost, and no write must be acknowledged until the image is opened again. */
  get failed(): boolean {
    return Atomics.load(this.#fields, SYNC_FAILED) !== 0;
  }

  /** Answers 0 once everything that any worker wrote before the call is on stable storage, else a positive errno. */
  flush(): number {
    const startedBefore = Atomics.load(this.#fields, SYNCS_STARTED);
    this.#lock();
    try {
      if (this.failed) return constants.errno.EIO;
      const done = Atomics.load(this.#fields, SYNCS_DONE);
      if (((done - startedBefore) | 0) > 0) return 0;
      return this.#syncLocked();
    } finally {
      this.#unlock();
    }
  }

  #syncLocked(): number {
    const number = Atomics.add(this.#fields, SYNCS_STARTED, 1) + 1;
    const errno = this.#sync();
    if (errno === 0) Atomics.store(this.#fields, SYNCS_DONE, number);
    else Atomics.store(this.#fields, SYNC_FAILED, 1);
    return errno;
  }

  /** Who has waited leaves a 2 behind, for there may be others; the worst of it is a notify for nobody. */
  #lock(): void {
    if (Atomics.compareExchange(this.#fields, SYNC_LOCK, 0, 1) === 0) return;
    while (Atomics.exchange(this.#fields, SYNC_LOCK, 2) !== 0) Atomics.wait(this.#fields, SYNC_LOCK, 2);
  }

  #unlock(): void {
    if (Atomics.exchange(this.#fields, SYNC_LOCK, 0) === 2) Atomics.notify(this.#fields, SYNC_LOCK, 1);
  }
}
