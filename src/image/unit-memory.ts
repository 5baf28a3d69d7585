import { addressOf, forget, freeMemory, keptMemory } from '../kernel/memory.js';

/**
 * Memory for calls that the kernel has on their way: each takes as many units as it needs, beside each other, and the first
 * of them is its ticket.
 */
export class UnitMemory {
  readonly bytes: Buffer;
  readonly #unitBytes: number;
  readonly #isUsed: Uint8Array;
  readonly #address: number;

  private constructor(bytes: Buffer, units: number, unitBytes: number) {
    this.bytes = bytes;
    this.#unitBytes = unitBytes;
    this.#isUsed = new Uint8Array(units);
    this.#address = addressOf(bytes);
  }

  /** Together a multiple of PAGE_ALIGNMENT_BYTES. Absent where there is no memory. */
  static of(units: number, unitBytes: number): UnitMemory | undefined {
    const bytes = keptMemory(units * unitBytes);
    return bytes === undefined ? undefined : new UnitMemory(bytes, units, unitBytes);
  }

  /** Takes room for so many bytes: answers the ticket, below 0 where there is none for now. */
  take(lengthBytes: number): number {
    const count = this.#units(lengthBytes);
    let free = 0;
    for (let unit = 0; unit < this.#isUsed.length; unit += 1) {
      free = this.#isUsed[unit] === 0 ? free + 1 : 0;
      if (free < count) continue;
      const ticket = unit - count + 1;
      this.#isUsed.fill(1, ticket, unit + 1);
      return ticket;
    }
    return -1;
  }

  /** The kernel has nothing more to do with what was taken for so many bytes. */
  free(ticket: number, lengthBytes: number): void {
    this.#isUsed.fill(0, ticket, ticket + this.#units(lengthBytes));
  }

  /** Where in `bytes` what was taken begins. */
  placeOf(ticket: number): number {
    return ticket * this.#unitBytes;
  }

  addressOf(ticket: number): number {
    return this.#address + this.placeOf(ticket);
  }

  /** Gives the memory back, which the next calls take again; none is on its way. */
  relax(): void {
    forget(this.bytes);
  }

  close(): void {
    freeMemory(this.bytes);
  }

  #units(lengthBytes: number): number {
    return Math.ceil(lengthBytes / this.#unitBytes);
  }
}
