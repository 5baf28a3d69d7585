import { constants } from 'node:os';
import type { FileCalls } from '../file-calls.js';
import { SharedLock } from '../shared-lock.js';
import { readZeroed } from '../whole-calls.js';
import { copiedHigh, hostOffset, isCopied, offsetLow, swapped } from './entries.js';
import type { Geometry } from './geometry.js';
import { L1_CHANGES, L1_DIRTY_FROM, L1_DIRTY_TO, METADATA_LOCK, type Qcow2Memory } from './memory.js';
import { SliceCache } from './slice-cache.js';

const { EIO } = constants.errno;

const RESERVED_LOW = 0x1ff;

/** The L1 table and the L2 tables of an image, in memory that all workers share: whole, and in slices. */
export class L2Tables {
  readonly cache: SliceCache;
  /** Under the lock: brings what is dirty into the file, so that a slice can go. Answers 0 or a positive errno. */
  clean: () => number = () => EIO;
  /** Before the lock is waited for: brings to its end what whoever has it may wait for. */
  beforeWait: () => void = () => {};
  readonly #geometry: Geometry;
  readonly #memory: Qcow2Memory;
  readonly #lock: SharedLock;
  readonly #fd: number;
  readonly #calls: FileCalls;

  constructor(geometry: Geometry, memory: Qcow2Memory, fd: number, calls: FileCalls) {
    this.#geometry = geometry;
    this.#memory = memory;
    this.#fd = fd;
    this.#calls = calls;
    this.cache = new SliceCache(memory.l2);
    this.#lock = new SharedLock(memory.fields, METADATA_LOCK);
  }

  /** Does something under the image's lock, and answers its answer. */
  hold<T>(act: () => T): T {
    this.beforeWait();
    return this.#lock.hold(act);
  }

  /** Whether no table is there for a slice. A change is seen before or after, never half: the first half of an entry is not zero. */
  isAbsent(slice: number): boolean {
    const at = this.#l1At(slice);
    const { l1 } = this.#memory;
    return Atomics.load(l1, at) === 0 && Atomics.load(l1, at + 1) === 0;
  }

  /** Whether the table of a slice may be changed in its place. */
  isCopied(slice: number): boolean {
    return isCopied(swapped(Atomics.load(this.#memory.l1, this.#l1At(slice))));
  }

  /** Where the table of a slice begins in the file: 0 where there is none, −1 where the entry makes no sense. */
  offsetOf(slice: number): number {
    const { l1 } = this.#memory;
    const at = this.#l1At(slice);
    const low = swapped(Atomics.load(l1, at + 1));
    const offset = hostOffset(swapped(Atomics.load(l1, at)), low);
    return offset % this.#geometry.clusterBytes !== 0 || (low & RESERVED_LOW) !== 0 ? -1 : offset;
  }

  /** Without the lock: waits until nobody changes the slice, and brings it into memory. Answers 0 or a positive errno. */
  settle(slice: number): number {
    return this.hold(() => Math.min(0, this.slotOf(slice)) * -1);
  }

  /** Under the lock: the slot of a slice, whose table is there. Answers −errno where it cannot be had. */
  slotOf(slice: number): number {
    const found = this.cache.find(slice);
    if (found >= 0) return found;
    const table = this.offsetOf(slice);
    if (table <= 0) return -EIO;
    let victim = this.cache.victim(slice);
    if (this.cache.isDirty(victim)) {
      const errno = this.clean();
      if (errno !== 0) return -errno;
      victim = this.cache.victim(slice);
    }
    const errno = this.cache.load(victim, slice, (bytes, at) => this.#read(table, slice, bytes, at));
    return errno === 0 ? victim : -errno;
  }

  /** Under the lock: the word with the number `word` of entry `index`. */
  word(slot: number, index: number, word: number): number {
    return swapped(Atomics.load(this.cache.words, this.#wordAt(slot, index) + word));
  }

  /** Under the lock: changes an entry in memory. `allocated` and `zero` are the bitmap of one with subclusters. */
  setEntry(slot: number, index: number, high: number, low: number, allocated: number, zero: number): void {
    const { words } = this.cache;
    const at = this.#wordAt(slot, index);
    this.cache.change(slot, () => {
      Atomics.store(words, at, swapped(high));
      Atomics.store(words, at + 1, swapped(low));
      if (!this.#geometry.extendedL2) return;
      Atomics.store(words, at + 2, swapped(zero));
      Atomics.store(words, at + 3, swapped(allocated));
    });
  }

  /** Under the lock: the L1 entry of a slice points to a table that is this image's alone. */
  setTable(slice: number, offsetBytes: number): void {
    const { l1, write } = this.#memory;
    const at = this.#l1At(slice);
    Atomics.store(l1, at, swapped(copiedHigh(offsetBytes)));
    Atomics.store(l1, at + 1, swapped(offsetLow(offsetBytes)));
    if (write === undefined) return;
    widen(write.numbers, L1_DIRTY_FROM, L1_DIRTY_TO, at / 2);
    write.numbers[L1_CHANGES] = (write.numbers[L1_CHANGES] ?? 0) + 1;
  }

  #read(table: number, slice: number, bytes: Uint8Array, at: number): number {
    const { sliceBytes, slicesPerTable } = this.#geometry;
    const offsetBytes = table + (slice % slicesPerTable) * sliceBytes;
    return readZeroed(this.#calls, this.#fd, offsetBytes, sliceBytes, bytes, at);
  }

  #l1At(slice: number): number {
    return Math.floor(slice / this.#geometry.slicesPerTable) * 2;
  }

  #wordAt(slot: number, index: number): number {
    return slot * this.cache.wordsPerSlice + (index * this.#geometry.l2EntryBytes) / 4;
  }
}

/** Has a range of entries that are not in the file hold `entry` too. */
export function widen(numbers: Float64Array, from: number, to: number, entry: number): void {
  const [begin = 0, end = 0] = [numbers[from], numbers[to]];
  numbers[from] = begin === end ? entry : Math.min(begin, entry);
  numbers[to] = begin === end ? entry + 1 : Math.max(end, entry + 1);
}
