import { invariant } from '../../base/invariant.js';

const WAYS_MAX = 8;
const WORD_BYTES = 4;

/**
 * Memory of a cache that all workers of an image share; it crosses threads. All fields are Int32, one a slot:
 *
 * | field | who writes | meaning |
 * | --- | --- | --- |
 * | tags | under the image's lock | the number of the slice in the slot, plus 1; 0: none |
 * | versions | under the image's lock | odd while the slot changes; goes up with each change |
 * | used | anybody | a hint: when it was last wanted, in counts of `clock` |
 * | dirty | under the image's lock | 1: not yet in the file |
 * | written | under the image's lock | the version that the file has |
 * | words | under the image's lock | the slice's bytes as they stand in the file |
 */
export interface CacheMemory {
  readonly sliceBytes: number;
  readonly ways: number;
  readonly tags: Int32Array<SharedArrayBuffer>;
  readonly versions: Int32Array<SharedArrayBuffer>;
  readonly used: Int32Array<SharedArrayBuffer>;
  readonly dirty: Int32Array<SharedArrayBuffer>;
  readonly written: Int32Array<SharedArrayBuffer>;
  readonly words: Int32Array<SharedArrayBuffer>;
}

/** Memory for a cache of `slices`, all of them if they come to no more than `bytesMax`. Nothing is resident before it is used. */
export function newCacheMemory(slices: number, sliceBytes: number, bytesMax: number): CacheMemory {
  const slotsMax = bytesMax / sliceBytes;
  const fitsWhole = slices <= slotsMax;
  const slots = Math.max(1, fitsWhole ? slices : slotsMax);
  return {
    sliceBytes,
    ways: fitsWhole ? 1 : Math.min(WAYS_MAX, slots),
    tags: sharedWords(slots),
    versions: sharedWords(slots),
    used: sharedWords(slots),
    dirty: sharedWords(slots),
    written: sharedWords(slots),
    words: sharedWords((slots * sliceBytes) / WORD_BYTES),
  };
}

export function sharedWords(count: number): Int32Array<SharedArrayBuffer> {
  return new Int32Array(new SharedArrayBuffer(Math.max(1, count) * WORD_BYTES));
}

/** A slice that was not in the file, as it was under the lock. */
export interface SliceCopy {
  readonly slot: number;
  readonly slice: number;
  readonly version: number;
  readonly bytes: Uint8Array;
}

/**
 * Slices of tables by their numbers. Reading needs no lock: look for the slot, take its version, read words, and
 * believe them if `isStill` says so. Every change is made under the image's lock.
 */
export class SliceCache {
  readonly wordsPerSlice: number;
  readonly words: Int32Array<SharedArrayBuffer>;
  readonly bytes: Uint8Array<SharedArrayBuffer>;
  readonly slots: number;
  readonly #memory: CacheMemory;
  readonly #sets: number;
  readonly #ways: number;
  #clock = 0;

  constructor(memory: CacheMemory) {
    this.#memory = memory;
    this.#ways = memory.ways;
    this.slots = memory.tags.length;
    this.#sets = this.slots / memory.ways;
    this.wordsPerSlice = memory.sliceBytes / WORD_BYTES;
    this.words = memory.words;
    this.bytes = new Uint8Array(memory.words.buffer);
    invariant(Number.isInteger(this.#sets), 'a cache has whole sets');
  }

  /** The slot of a slice, or −1. */
  find(slice: number): number {
    const { tags, used } = this.#memory;
    const first = (slice % this.#sets) * this.#ways;
    for (let slot = first; slot < first + this.#ways; slot += 1) {
      if (Atomics.load(tags, slot) !== slice + 1) continue;
      if (this.#ways > 1) used[slot] = this.#clock++;
      return slot;
    }
    return -1;
  }

  version(slot: number): number {
    return Atomics.load(this.#memory.versions, slot);
  }

  /** Whether what was read since `version` was asked is the slice's content at one moment. */
  isStill(slot: number, slice: number, version: number): boolean {
    if ((version & 1) !== 0) return false;
    return Atomics.load(this.#memory.tags, slot) === slice + 1 && Atomics.load(this.#memory.versions, slot) === version;
  }

  /** Under the lock: `change` changes words of the slot; whoever reads meanwhile looks again. */
  change(slot: number, change: () => void): void {
    const { versions, dirty } = this.#memory;
    Atomics.add(versions, slot, 1);
    change();
    dirty[slot] = 1;
    Atomics.add(versions, slot, 1);
  }

  hasDirty(): boolean {
    return this.#memory.dirty.includes(1);
  }

  isDirty(slot: number): boolean {
    return this.#memory.dirty[slot] !== 0;
  }

  /** Under the lock: has `write` write each slice that is not in the file, from the byte it is given. Stops at an errno. */
  writeDirty(write: (slice: number, bytes: Uint8Array, at: number) => number): number {
    const { dirty, tags, versions, written, sliceBytes } = this.#memory;
    for (let slot = 0; slot < this.slots; slot += 1) {
      if (dirty[slot] === 0) continue;
      const errno = write(Atomics.load(tags, slot) - 1, this.bytes, slot * sliceBytes);
      if (errno !== 0) return errno;
      dirty[slot] = 0;
      written[slot] = Atomics.load(versions, slot);
    }
    return 0;
  }

  /** Under the lock. */
  copyDirty(): readonly SliceCopy[] {
    const { dirty, tags, versions, sliceBytes } = this.#memory;
    const copies: SliceCopy[] = [];
    for (let slot = dirty.indexOf(1); slot >= 0; slot = dirty.indexOf(1, slot + 1)) {
      const bytes = this.bytes.slice(slot * sliceBytes, (slot + 1) * sliceBytes);
      copies.push({ slot, slice: Atomics.load(tags, slot) - 1, version: Atomics.load(versions, slot), bytes });
    }
    return copies;
  }

  /** Under the lock, maybe later: the same for slices as they were when they were copied, unless the file has newer ones. */
  writeCopies(copies: readonly SliceCopy[], write: (slice: number, bytes: Uint8Array, at: number) => number): number {
    const { dirty, tags, versions, written } = this.#memory;
    for (const { slot, slice, version, bytes } of copies) {
      // What has left the slot was written before.
      if (Atomics.load(tags, slot) !== slice + 1 || (((written[slot] ?? 0) - version) | 0) >= 0) continue;
      const errno = write(slice, bytes, 0);
      if (errno !== 0) return errno;
      written[slot] = version;
      if (Atomics.load(versions, slot) === version) dirty[slot] = 0;
    }
    return 0;
  }

  /** Under the lock: where a slice that is not there may be put. A dirty one is answered only if its whole set is dirty. */
  victim(slice: number): number {
    const { tags, used, dirty } = this.#memory;
    const first = (slice % this.#sets) * this.#ways;
    let best = first;
    let bestAge = -1;
    for (let slot = first; slot < first + this.#ways; slot += 1) {
      if (Atomics.load(tags, slot) === 0) return slot;
      const age = dirty[slot] !== 0 ? 0 : (this.#clock - (used[slot] ?? 0)) >>> 0;
      if (age > bestAge) {
        best = slot;
        bestAge = age;
      }
    }
    return best;
  }

  /** Under the lock: `fill` puts a slice's bytes into a slot, from the byte it is given; answers its answer, 0 or an errno. */
  load(slot: number, slice: number, fill: (bytes: Uint8Array, at: number) => number): number {
    const { tags, versions, dirty, written, used, sliceBytes } = this.#memory;
    invariant(dirty[slot] === 0, 'what is not in the file stays in the cache');
    Atomics.add(versions, slot, 1);
    Atomics.store(tags, slot, 0);
    const errno = fill(this.bytes, slot * sliceBytes);
    if (errno === 0) Atomics.store(tags, slot, slice + 1);
    used[slot] = this.#clock++;
    written[slot] = Atomics.add(versions, slot, 1) + 1;
    return errno;
  }
}
