import { constants } from 'node:os';
import { invariant } from '../base/invariant.js';
import type { BegunSync } from './begun-sync.js';
import { type SharedFields, SYNC_FAILED, SYNC_LOCK, SYNCS_DONE, SYNCS_STARTED } from './shared-layout.js';
import { SharedLock } from './shared-lock.js';

const { EDQUOT, EFBIG, EINTR, EIO, ENOSPC } = constants.errno;

/**
 * Brings what was written to stable storage, for all workers of one opening of an image.
 *
 * The kernel tells of a lost write once, to the first sync of the open file that asks, and then calls the pages clean.
 * So one worker syncs at a time, and leaves the mark of a failure before another can ask and be told that all is well.
 * Those that waited meanwhile share one sync: it began after their writes. A sync that was begun is one of an open file of
 * the worker's own, and hides nothing from others; so it waits for none.
 */
export class StableStorage {
  readonly #fields: SharedFields;
  readonly #sync: () => number;
  readonly #lock: SharedLock;
  readonly #openBegun: () => BegunSync | undefined;
  /** Absent until a flush is to be begun. */
  #begun: BegunSync | 'unavailable' | undefined;
  /** Of the sync that was begun. */
  #number = 0;

  /** `sync` answers 0 or a positive errno; `openBegun` gives what syncs the same beside other work, where that can be had. */
  constructor(fields: SharedFields, sync: () => number, openBegun: () => BegunSync | undefined = () => undefined) {
    this.#fields = fields;
    this.#sync = sync;
    this.#openBegun = openBegun;
    this.#lock = new SharedLock(fields, SYNC_LOCK);
  }

  /** A sync failed: what was acknowledged may be lost, and no write must be acknowledged until the image is opened again. */
  get failed(): boolean {
    return Atomics.load(this.#fields, SYNC_FAILED) !== 0;
  }

  /** Answers 0 once everything that any worker wrote before the call is on stable storage, else a positive errno. */
  flush(): number {
    const startedBefore = Atomics.load(this.#fields, SYNCS_STARTED);
    return this.#lock.hold(() => {
      if (this.failed) return EIO;
      const done = Atomics.load(this.#fields, SYNCS_DONE);
      if (((done - startedBefore) | 0) > 0) return 0;
      return this.#syncLocked();
    });
  }

  /**
   * Begins a flush, one at a time; `finish` tells how it went. False: `flush` is to be called. So it is the first time, for
   * of what was lost before it was opened, the new open file may know nothing; the opener's knows.
   */
  begin(): boolean {
    if (this.#begun === undefined) {
      this.#begun = this.#openBegun() ?? 'unavailable';
      return false;
    }
    if (this.#begun === 'unavailable' || this.failed) return false;
    this.#number = Atomics.add(this.#fields, SYNCS_STARTED, 1) + 1;
    return this.#begun.begin();
  }

  /** For poll(2): readable once the flush that was begun is done. */
  get begunFd(): number {
    invariant(typeof this.#begun === 'object', 'a flush was begun');
    return this.#begun.readableFd;
  }

  get isBegunDone(): boolean {
    return typeof this.#begun !== 'object' || this.#begun.isDone;
  }

  /** Waits for the flush that was begun, and answers as `flush` does. */
  finish(): number {
    invariant(typeof this.#begun === 'object', 'a flush was begun');
    const errno = this.#begun.finish();
    return errno < 0 ? this.flush() : this.#wasSynced(this.#number, errno);
  }

  close(): void {
    if (typeof this.#begun === 'object') this.#begun.close();
    this.#begun = 'unavailable';
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

  #syncLocked(): number {
    const number = Atomics.add(this.#fields, SYNCS_STARTED, 1) + 1;
    return this.#wasSynced(number, this.#sync());
  }

  /** Another sync that failed meanwhile, or a durable write, may have lost what this one believes to be safe. */
  #wasSynced(number: number, errno: number): number {
    if (errno !== 0) this.#markFailed();
    if (this.failed) return errno === 0 ? EIO : errno;
    for (;;) {
      const done = Atomics.load(this.#fields, SYNCS_DONE);
      if (((number - done) | 0) <= 0) return 0;
      if (Atomics.compareExchange(this.#fields, SYNCS_DONE, done, number) === done) return 0;
    }
  }

  #markFailed(): void {
    Atomics.store(this.#fields, SYNC_FAILED, 1);
    Atomics.notify(this.#fields, SYNC_FAILED);
  }
}

function mayNotHaveBegun(errno: number): boolean {
  return errno === ENOSPC || errno === EDQUOT || errno === EFBIG || errno === EINTR;
}
