import { constants } from 'node:os';
import { type SharedFields, SYNC_FAILED, SYNC_LOCK, SYNCS_DONE, SYNCS_STARTED } from './shared-layout.js';
import { SharedLock } from './shared-lock.js';

const { EDQUOT, EFBIG, EINTR, EIO, ENOSPC } = constants.errno;

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
  readonly #lock: SharedLock;

  /** `sync` answers 0 or a positive errno. */
  constructor(fields: SharedFields, sync: () => number) {
    this.#fields = fields;
    this.#sync = sync;
    this.#lock = new SharedLock(fields, SYNC_LOCK);
  }

  /** A sync failed: what was acknowledged may be lost, and no write must be acknowledged until the image is opened again. */
  get failed(): boolean {
    return Atomics.load(this.#fields, SYNC_FAILED) !== 0;
  }

  /** Answers 0 once everything that any worker wrote before the call is on stable storage, else a positive errno. */
  flush(): number {
    const startedBefore = Atomics.load(this.#fields, SYNCS_STARTED);
    this.#lock.take();
    try {
      if (this.failed) return EIO;
      const done = Atomics.load(this.#fields, SYNCS_DONE);
      if (((done - startedBefore) | 0) > 0) return 0;
      return this.#syncLocked();
    } finally {
      this.#lock.leave();
    }
  }

  /**
   * The answer for a write that was durable by itself (O_DSYNC) and answered `errno`. The write may not have begun, as
   * when the disk is full, or its sync may have failed: that it was no such failure only a sync of everything can tell.
   */
  afterDurableWrite(errno: number): number {
    if (errno === 0) return this.failed ? EIO : 0;
    if (mayNotHaveBegun(errno)) this.flush();
    else this.#markFailed();
    return errno;
  }

  /** Another sync that failed meanwhile, a durable write's, may have lost what this one believes to be safe. */
  #syncLocked(): number {
    const number = Atomics.add(this.#fields, SYNCS_STARTED, 1) + 1;
    const errno = this.#sync();
    if (errno !== 0) this.#markFailed();
    if (this.failed) return errno === 0 ? EIO : errno;
    Atomics.store(this.#fields, SYNCS_DONE, number);
    return 0;
  }

  #markFailed(): void {
    Atomics.store(this.#fields, SYNC_FAILED, 1);
  }
}

function mayNotHaveBegun(errno: number): boolean {
  return errno === ENOSPC || errno === EDQUOT || errno === EFBIG || errno === EINTR;
}
