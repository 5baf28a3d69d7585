import { FileRing } from '../kernel/file-ring.js';
import { UnitMemory } from './unit-memory.js';

/** Reads or writes of files that the kernel does all at the same time for one thread, each with memory of its own. */
export class RingCalls {
  readonly memory: UnitMemory;
  readonly #ring: FileRing;
  #count = 0;
  /** What was added and not handed over yet. */
  #added = false;
  /** The ring would not go on. What is on its way may still use the memory, so it is kept, and nothing is begun. */
  #broken = false;

  private constructor(ring: FileRing, memory: UnitMemory) {
    this.#ring = ring;
    this.memory = memory;
  }

  /** With so many units of memory, and calls at a time: a power of two. Absent where the kernel has no io_uring for us, or no memory. */
  static open(calls: number, unitBytes: number): RingCalls | undefined {
    const ring = FileRing.open(calls);
    if (ring === undefined) return undefined;
    const memory = UnitMemory.of(calls, unitBytes);
    if (memory === undefined) ring.close();
    return memory === undefined ? undefined : new RingCalls(ring, memory);
  }

  get isEmpty(): boolean {
    return this.#count === 0;
  }

  get isBroken(): boolean {
    return this.#broken;
  }

  /** For poll(2): readable while a call is done that `take` has not told of. */
  get readableFd(): number {
    return this.#ring.readableFd;
  }

  /** Takes memory for a call: answers its ticket, below 0 where another must end first. */
  begin(lengthBytes: number): number {
    const ticket = this.memory.take(lengthBytes);
    if (ticket >= 0) this.#count += 1;
    return ticket;
  }

  end(ticket: number, lengthBytes: number): void {
    this.memory.free(ticket, lengthBytes);
    this.#count -= 1;
  }

  /** Into the ticket's memory. */
  read(ticket: number, fd: number, offsetBytes: number, length: number): void {
    this.#ring.read(fd, offsetBytes, length, this.memory.addressOf(ticket), ticket);
    this.#added = true;
  }

  /** From `at` in the ticket's memory. */
  write(ticket: number, fd: number, offsetBytes: number, length: number, at: number): void {
    this.#ring.write(fd, offsetBytes, length, this.memory.addressOf(ticket) + at, ticket);
    this.#added = true;
  }

  /**
   * Hands over what was added, and waits until at least `waitFor` calls have ended (or all, if they are fewer). `onDone` is told the ticket
   * and the result of each that is done, at most `most` at a time, and ends it or adds more; `onBroken` ends all that are left.
   */
  take(waitFor: number, onDone: (ticket: number, result: number) => void, onBroken: () => void, most?: number): void {
    const left = Math.max(0, this.#count - waitFor);
    if (!this.#broken) this.#ring.take(onDone, most);
    while (this.#added || this.#count > left) {
      this.#added = false;
      if (this.#ring.submit(this.#count > left ? 1 : 0) === 0) this.#ring.take(onDone, most);
      else {
        this.#broken = true;
        onBroken();
      }
    }
  }

  /** Gives the memory back, which the next calls take again. */
  relax(): void {
    if (this.isEmpty && !this.#broken) this.memory.relax();
  }

  /** Nothing that was begun is left. */
  close(): void {
    if (this.#broken) return;
    this.#ring.close();
    this.memory.close();
  }
}
