import type { SharedFields } from './shared-layout.js';

/** A lock for short work, in a shared field that is 0 when it is free, 1 when taken, 2 when taken and others may wait. */
export class SharedLock {
  readonly #fields: SharedFields;
  readonly #field: number;

  constructor(fields: SharedFields, field: number) {
    this.#fields = fields;
    this.#field = field;
  }

  /** Who has waited leaves a 2 behind, for there may be others; the worst of it is a notify for nobody. */
  take(): void {
    if (Atomics.compareExchange(this.#fields, this.#field, 0, 1) === 0) return;
    while (Atomics.exchange(this.#fields, this.#field, 2) !== 0) Atomics.wait(this.#fields, this.#field, 2);
  }

  /** Does something with the lock taken, and answers its answer. */
  hold<T>(act: () => T): T {
    this.take();
    try {
      return act();
    } finally {
      this.leave();
    }
  }

  leave(): void {
    if (Atomics.exchange(this.#fields, this.#field, 0) === 2) Atomics.notify(this.#fields, this.#field, 1);
  }
}
