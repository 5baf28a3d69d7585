import type { FileCalls } from './file-calls.js';

/**
 * A second fd of an image's file, opened O_DSYNC: a write by it is on stable storage when it returns, and no other write
 * need be. It is a worker's own, because the kernel tells each open file once of a write that was lost: if two workers
 * shared one, the second would be told that all is well before the first had left its mark.
 */
export class DurableFd {
  readonly #fd: number;
  readonly #flags: number;
  readonly #calls: FileCalls;
  #opened: number | undefined;

  /** `flags` are those of open(2), O_DSYNC among them. */
  constructor(fd: number, flags: number, calls: FileCalls) {
    this.#fd = fd;
    this.#flags = flags;
    this.#calls = calls;
  }

  /** Opened when it is first wanted; −errno where that is not possible, and not tried again. */
  get fd(): number {
    this.#opened ??= this.#calls.reopen(this.#fd, this.#flags);
    return this.#opened;
  }

  close(): void {
    if (this.#opened !== undefined && this.#opened >= 0) this.#calls.close(this.#opened);
    this.#opened = -1;
  }
}
