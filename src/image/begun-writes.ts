import { constants } from 'node:os';
import { FileRing } from '../kernel/file-ring.js';
import { addressOf, forget, freeMemory, keptMemory } from '../kernel/memory.js';
import type { DirectFile, DirectHandle } from './direct-io.js';
import { RangeLock } from './range-lock.js';

const { EAGAIN, EINTR, EIO } = constants.errno;

/** A longer write is not taken. */
export const BEGUN_BYTES_MAX = 65_536;
/** Writes on their way at a time: as deep a queue as clients keep. A power of two. */
export const BEGUN_MAX = 64;
const PENDING = -1_000_000;

/** Writes of whole blocks past the page cache, done by the disk all at the same time, each from memory of its own. */
export class BegunWrites {
  readonly #file: DirectFile;
  readonly #lock: RangeLock;
  readonly #ring: FileRing;
  readonly #memory: Buffer;
  readonly #address: number;
  readonly #offsets = new Float64Array(BEGUN_MAX);
  readonly #lengths = new Int32Array(BEGUN_MAX);
  /** Bytes written or −errno, PENDING before that. */
  readonly #results = new Int32Array(BEGUN_MAX);
  #count = 0;
  #done = 0;
  /** The ring would not go on. What is on its way may still be read, so the memory is kept, and nothing is begun. */
  #broken = false;
  readonly #onDone = (slot: number, result: number) => {
    this.#results[slot] = result;
    this.#done += 1;
  };

  private constructor({ direct, shared }: DirectHandle, ring: FileRing, memory: Buffer) {
    this.#file = direct;
    this.#lock = new RangeLock(shared);
    this.#ring = ring;
    this.#memory = memory;
    this.#address = addressOf(memory);
  }

  /** Absent where the kernel does not do several writes at a time for one thread. */
  static on(handle: DirectHandle): BegunWrites | undefined {
    const ring = FileRing.open(BEGUN_MAX);
    if (ring === undefined) return undefined;
    const memory = keptMemory(BEGUN_MAX * BEGUN_BYTES_MAX);
    if (memory === undefined) ring.close();
    return memory === undefined ? undefined : new BegunWrites(handle, ring, memory);
  }

  /**
   * Begins a write; `source` is free again at once. False: it is not one of whole blocks, too long, overlaps one that was
   * begun, or there are too many.
   */
  begin(offsetBytes: number, length: number, source: Uint8Array, at: number): boolean {
    const { fd, blockBytes } = this.#file;
    if (this.#broken || this.#count === BEGUN_MAX || length > BEGUN_BYTES_MAX) return false;
    if (offsetBytes % blockBytes !== 0 || length % blockBytes !== 0 || this.#overlaps(offsetBytes, length))
      return false;
    if (this.#count === 0) {
      if (this.#lock.isAwaited) return false;
      this.#lock.share(0, Number.MAX_SAFE_INTEGER);
    }
    const slot = this.#count;
    this.#memory.set(source.subarray(at, at + length), slot * BEGUN_BYTES_MAX);
    this.#offsets[slot] = offsetBytes;
    this.#lengths[slot] = length;
    this.#results[slot] = PENDING;
    this.#ring.write(fd, offsetBytes, length, this.#address + slot * BEGUN_BYTES_MAX, slot);
    this.#count += 1;
    return true;
  }

  /**
   * Waits for all; fills `errnos` (0 or positive) in the order in which they were begun. What was written in part, or
   * interrupted, `writeAll` does again; it answers 0 or a positive errno.
   */
  finish(
    errnos: Int32Array,
    writeAll: (offsetBytes: number, length: number, source: Uint8Array, at: number) => number,
  ): void {
    if (this.#count === 0) return;
    while (this.#done < this.#count && !this.#broken) {
      this.#broken = this.#ring.submit(this.#count - this.#done) !== 0;
      this.#ring.take(this.#onDone);
    }
    this.#lock.release();
    const count = this.#count;
    this.#count = 0;
    this.#done = 0;
    for (let slot = 0; slot < count; slot += 1) {
      const result = this.#results[slot] ?? PENDING;
      const length = this.#lengths[slot] ?? 0;
      if (result === length) errnos[slot] = 0;
      else if (result === PENDING) errnos[slot] = EIO;
      else if (result < 0 && result !== -EINTR && result !== -EAGAIN) errnos[slot] = -result;
      else errnos[slot] = writeAll(this.#offsets[slot] ?? 0, length, this.#memory, slot * BEGUN_BYTES_MAX);
    }
  }

  /** Gives the memory back, which the next writes take again. */
  relax(): void {
    if (this.#count === 0 && !this.#broken) forget(this.#memory);
  }

  /** Nothing that was begun is left unfinished. */
  close(): void {
    if (this.#broken) return;
    this.#ring.close();
    freeMemory(this.#memory);
  }

  #overlaps(offsetBytes: number, length: number): boolean {
    for (let slot = 0; slot < this.#count; slot += 1) {
      const begin = this.#offsets[slot] ?? 0;
      if (begin < offsetBytes + length && offsetBytes < begin + (this.#lengths[slot] ?? 0)) return true;
    }
    return false;
  }
}
