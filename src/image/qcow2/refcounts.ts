import { constants } from 'node:os';
import type { FileCalls } from '../file-calls.js';
import { readZeroed } from '../whole-calls.js';
import { hostOffset, offsetLow, swapped } from './entries.js';
import type { Geometry } from './geometry.js';
import { widen } from './l2-tables.js';
import { TABLE_CHANGES, TABLE_DIRTY_FROM, TABLE_DIRTY_TO, TABLE_ROOM, type WriteMemory } from './memory.js';
import { firstZero, putRefcount, refcountAt } from './refcount-codec.js';
import { SliceCache } from './slice-cache.js';

const { EIO } = constants.errno;
const ENTRY_BYTES = 8;
const HIGH = 2 ** 32;

/** How often each cluster of the file is used, in memory that all workers share; everything is under the image's lock. */
export class Refcounts {
  readonly cache: SliceCache;
  /** Clusters that one block tells of. */
  readonly blockEntries: number;
  /** Brings what is dirty into the file, so that a slice can go, and changes no refcount. Answers 0 or a positive errno. */
  clean: () => number = () => EIO;
  readonly #bits: number;
  readonly #sliceEntries: number;
  readonly #clusterBytes: number;
  readonly #sliceBytes: number;
  readonly #memory: WriteMemory;
  readonly #fd: number;
  readonly #calls: FileCalls;

  constructor(geometry: Geometry, memory: WriteMemory, fd: number, calls: FileCalls) {
    const { refcountBits, clusterBytes, sliceBytes } = geometry;
    this.#bits = refcountBits;
    this.#clusterBytes = clusterBytes;
    this.#sliceBytes = sliceBytes;
    this.#sliceEntries = (sliceBytes * 8) / refcountBits;
    this.blockEntries = (clusterBytes * 8) / refcountBits;
    this.#memory = memory;
    this.#fd = fd;
    this.#calls = calls;
    this.cache = new SliceCache(memory.refcounts);
  }

  /** Blocks that the table has room for. */
  get tableEntries(): number {
    return ((this.#memory.numbers[TABLE_ROOM] ?? 0) * this.#clusterBytes) / ENTRY_BYTES;
  }

  /** Where the block that tells of a cluster is: 0 where there is none, −1 where the entry makes no sense. */
  blockOffset(cluster: number): number {
    const block = Math.floor(cluster / this.blockEntries);
    return block < this.tableEntries ? this.tableEntry(block) : 0;
  }

  tableEntry(block: number): number {
    const { refcountTable } = this.#memory;
    const high = swapped(refcountTable[2 * block] ?? 0);
    const low = swapped(refcountTable[2 * block + 1] ?? 0);
    const offset = hostOffset(high, low);
    const isOdd = high >>> 24 !== 0 || (low & 0x1ff) !== 0 || offset % this.#clusterBytes !== 0;
    return isOdd ? -1 : offset;
  }

  setTableEntry(block: number, offsetBytes: number): void {
    const { refcountTable, numbers } = this.#memory;
    refcountTable[2 * block] = swapped(Math.floor(offsetBytes / HIGH));
    refcountTable[2 * block + 1] = swapped(offsetLow(offsetBytes));
    widen(numbers, TABLE_DIRTY_FROM, TABLE_DIRTY_TO, block);
    numbers[TABLE_CHANGES] = (numbers[TABLE_CHANGES] ?? 0) + 1;
  }

  /** Answers −errno where it cannot be read. */
  get(cluster: number): number {
    const block = this.blockOffset(cluster);
    if (block <= 0) return block === 0 ? 0 : -EIO;
    const slot = this.#slotOf(cluster, block);
    if (slot < 0) return slot;
    return refcountAt(this.cache.bytes, slot * this.#sliceBytes, cluster % this.#sliceEntries, this.#bits);
  }

  /** The first cluster from `cluster` on whose refcount is 0, or for which no block is there. Answers −errno where one cannot be read. */
  firstUncounted(cluster: number): number {
    let at = cluster;
    for (;;) {
      const block = this.blockOffset(at);
      if (block <= 0) return block === 0 ? at : -EIO;
      const slot = this.#slotOf(at, block);
      if (slot < 0) return slot;
      const index = at % this.#sliceEntries;
      const found = firstZero(this.cache.bytes, slot * this.#sliceBytes, index, this.#sliceEntries, this.#bits);
      at += found - index;
      if (found < this.#sliceEntries) return at;
    }
  }

  /** Sets the refcount of a cluster whose block is there. Answers 0 or a positive errno. */
  set(cluster: number, refcount: number): number {
    const block = this.blockOffset(cluster);
    if (block <= 0) return EIO;
    const slot = this.#slotOf(cluster, block);
    if (slot < 0) return -slot;
    this.cache.change(slot, () => {
      putRefcount(this.cache.bytes, slot * this.#sliceBytes, cluster % this.#sliceEntries, this.#bits, refcount);
    });
    return 0;
  }

  /** Has room for the refcount of a cluster whose block is yet to come. Answers 0 or a positive errno. */
  makeRoom(cluster: number): number {
    return this.cache.isDirty(this.cache.victim(this.#sliceOf(cluster))) ? this.clean() : 0;
  }

  /** Where in the file a slice of the cache is; −1 where its block is gone. */
  sliceOffset(slice: number): number {
    const block = this.blockOffset(slice * this.#sliceEntries);
    return block <= 0 ? -1 : block + ((slice * this.#sliceBytes) % this.#clusterBytes);
  }

  #sliceOf(cluster: number): number {
    return Math.floor(cluster / this.#sliceEntries);
  }

  #slotOf(cluster: number, block: number): number {
    const slice = this.#sliceOf(cluster);
    const found = this.cache.find(slice);
    if (found >= 0) return found;
    let victim = this.cache.victim(slice);
    if (this.cache.isDirty(victim)) {
      const errno = this.clean();
      if (errno !== 0) return -errno;
      victim = this.cache.victim(slice);
    }
    const offsetBytes = block + ((slice * this.#sliceBytes) % this.#clusterBytes);
    const errno = this.cache.load(victim, slice, (bytes, at) =>
      readZeroed(this.#calls, this.#fd, offsetBytes, this.#sliceBytes, bytes, at),
    );
    return errno === 0 ? victim : -errno;
  }
}
