import { constants as fsConstants } from 'node:fs';
import { FileRing } from '../kernel/file-ring.js';
import type { FileCalls } from './file-calls.js';

/** Not an errno: whether what was begun is done, nobody knows. */
const UNKNOWN = -1;

/** A sync of files that goes on while its worker does something else, one at a time. */
export interface BegunSync {
  /** False: nothing was begun, and nothing ever will be. */
  begin(): boolean;
  /** For poll(2): readable once it is done, or a part of it. */
  readonly readableFd: number;
  readonly isDone: boolean;
  /** Waits. Answers 0, a positive errno, or a number below 0 where what became of it cannot be told. */
  finish(): number;
  /** Nothing is left that was begun. */
  close(): void;
}

/**
 * One that the kernel does, by open files of the worker's own: each of them is told once of a write that was lost, and is told
 * it whoever else was.
 */
export class RingSync implements BegunSync {
  readonly #fds: readonly number[];
  readonly #ring: FileRing;
  readonly #calls: FileCalls;
  #left = 0;
  #errno = 0;
  /** The ring would not go on. */
  #broken = false;
  readonly #onDone = (_tag: number, result: number) => {
    this.#left -= 1;
    if (result < 0) this.#errno = -result;
  };

  private constructor(fds: readonly number[], ring: FileRing, calls: FileCalls) {
    this.#fds = fds;
    this.#ring = ring;
    this.#calls = calls;
  }

  /** Absent where the kernel does no sync beside its thread. */
  static on(fds: readonly number[], calls: FileCalls): RingSync | undefined {
    const own = fds.map((fd) => calls.reopen(fd, fsConstants.O_RDWR));
    const ring = own.some((fd) => fd < 0) ? undefined : FileRing.open(own.length);
    if (ring !== undefined) return new RingSync(own, ring, calls);
    for (const fd of own) if (fd >= 0) calls.close(fd);
    return undefined;
  }

  begin(): boolean {
    if (this.#broken) return false;
    this.#errno = 0;
    this.#left = this.#fds.length;
    this.#fds.forEach((fd, tag) => {
      this.#ring.sync(fd, tag);
    });
    this.#broken = this.#ring.submit(0) !== 0;
    return !this.#broken;
  }

  get readableFd(): number {
    return this.#ring.readableFd;
  }

  get isDone(): boolean {
    if (this.#left > 0) this.#ring.take(this.#onDone);
    return this.#left <= 0;
  }

  finish(): number {
    while (!this.isDone) {
      this.#broken = this.#ring.submit(1) !== 0;
      if (this.#broken) return UNKNOWN;
    }
    return this.#errno;
  }

  close(): void {
    if (this.#left > 0) this.finish();
    if (this.#broken) return;
    this.#ring.close();
    for (const fd of this.#fds) this.#calls.close(fd);
  }
}
