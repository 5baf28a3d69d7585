import { BLOCK_HOLDERS, BLOCK_TURNS, BLOCK_WAITERS, type SharedFields } from './shared-layout.js';

const ALONE = -1;

/**
 * Keeps the writing of a part of a block, which reads the block, changes it and writes it back, apart from every other
 * change, over all workers of an image: what another wrote in between would be lost. Others share the lock.
 */
export class BlockLock {
  readonly #fields: SharedFields;

  constructor(fields: SharedFields) {
    this.#fields = fields;
  }

  /** For a change of whole blocks. */
  share(): void {
    for (;;) {
      const turn = Atomics.load(this.#fields, BLOCK_TURNS);
      if (this.#tryToShare()) return;
      Atomics.wait(this.#fields, BLOCK_TURNS, turn);
    }
  }

  unshare(): void {
    if (Atomics.sub(this.#fields, BLOCK_HOLDERS, 1) === 1) this.#nextTurn();
  }

  /** For a change of a part of a block. */
  takeAlone(): void {
    Atomics.add(this.#fields, BLOCK_WAITERS, 1);
    for (;;) {
      const turn = Atomics.load(this.#fields, BLOCK_TURNS);
      if (Atomics.compareExchange(this.#fields, BLOCK_HOLDERS, 0, ALONE) === 0) break;
      Atomics.wait(this.#fields, BLOCK_TURNS, turn);
    }
    Atomics.sub(this.#fields, BLOCK_WAITERS, 1);
  }

  leave(): void {
    Atomics.store(this.#fields, BLOCK_HOLDERS, 0);
    this.#nextTurn();
  }

  /** False while one has it alone or wants to; of the latter the turn is yet to come. */
  #tryToShare(): boolean {
    for (;;) {
      const holders = Atomics.load(this.#fields, BLOCK_HOLDERS);
      if (holders === ALONE || Atomics.load(this.#fields, BLOCK_WAITERS) > 0) return false;
      if (Atomics.compareExchange(this.#fields, BLOCK_HOLDERS, holders, holders + 1) === holders) return true;
    }
  }

  /** A turn that changed before the wait began is not waited for. */
  #nextTurn(): void {
    Atomics.add(this.#fields, BLOCK_TURNS, 1);
    Atomics.notify(this.#fields, BLOCK_TURNS);
  }
}
