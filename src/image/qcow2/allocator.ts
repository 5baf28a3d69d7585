import { constants } from 'node:os';
import { END_OF_FILE, PUNCH_HOLE } from '../../kernel/fd-calls.js';
import type { FileCalls } from '../file-calls.js';
import type { Geometry } from './geometry.js';
import {
  DROPPED_COUNT,
  FREEING_COUNT,
  FRESH_FROM,
  LENT_COUNT,
  NEXT_FREE,
  RANGES_MAX,
  REACHED,
  TABLE_CLUSTERS,
  TABLE_OFFSET,
  type WriteMemory,
} from './memory.js';
import { L2_TABLE, MetadataAreas, REFCOUNT_BLOCK } from './metadata-areas.js';
import { pushRange } from './pushed-ranges.js';
import type { Refcounts } from './refcounts.js';
import { ReservedStorage } from './reserved-storage.js';
import type { WorkerTurns } from './worker-turns.js';

const { EFBIG, EIO } = constants.errno;

const NO_CLUSTERS: ReadonlySet<number> = new Set();

/** What the allocator needs that is not its own; each answers 0 or a positive errno. */
export interface AllocatorDuties {
  /** Makes the refcount table longer, so that it tells of a cluster, which lies behind all that it told of. */
  growTable(cluster: number): number;
  /** The tables contradict each other. Answers EIO. */
  markCorrupt(): number;
  /** Whether a cluster holds a table that is in use now. */
  isTableInUse(cluster: number): boolean;
  /** Has a cluster of the file read as zeroes. */
  writeZeroCluster(cluster: number): number;
}

/** Gives clusters of the file to who needs them, and takes back what nobody points to; all under the image's lock. */
export class Allocator {
  // What `allocate` gave.
  first = 0;
  count = 0;
  /** The file reads as zeroes there. */
  isFresh = false;

  readonly areas: MetadataAreas;
  readonly reserved: ReservedStorage;
  readonly #refcounts: Refcounts;
  readonly #memory: WriteMemory;
  readonly #duties: AllocatorDuties;
  readonly #turns: WorkerTurns | undefined;
  readonly #clusterBytes: number;
  readonly #fd: number;
  readonly #calls: FileCalls;

  constructor(
    { clusterBytes }: Geometry,
    memory: WriteMemory,
    refcounts: Refcounts,
    duties: AllocatorDuties,
    turns: WorkerTurns | undefined,
    file: { readonly fd: number; readonly calls: FileCalls },
  ) {
    this.areas = new MetadataAreas(memory.areas);
    this.reserved = new ReservedStorage(memory, file);
    this.#refcounts = refcounts;
    this.#memory = memory;
    this.#duties = duties;
    this.#turns = turns;
    this.#clusterBytes = clusterBytes;
    this.#fd = file.fd;
    this.#calls = file.calls;
  }

  /** Takes the first free clusters, one behind the other, at most `wanted` and at least one. Answers 0 or a positive errno. */
  allocate(wanted: number): number {
    const { numbers } = this.#memory;
    const cluster = this.#firstFree();
    if (cluster < 0) return -cluster;
    let count = 1;
    while (count < wanted && this.#refcounts.blockOffset(cluster + count) > 0 && this.#useOf(cluster + count) === 0) {
      count += 1;
    }
    for (let index = 0; index < count; index += 1) {
      const errno = this.#refcounts.set(cluster + index, 1);
      if (errno !== 0) return errno;
    }
    const freshFrom = numbers[FRESH_FROM] ?? 0;
    this.first = cluster;
    this.count = count;
    this.isFresh = cluster >= freshFrom;
    numbers[NEXT_FREE] = cluster + count;
    numbers[FRESH_FROM] = Math.max(freshFrom, cluster + count);
    if (this.isFresh) this.reserved.reserve(cluster * this.#clusterBytes, (cluster + count) * this.#clusterBytes);
    return 0;
  }

  /** Answers −errno where none can be had; what was found to be used is not looked at again even then. */
  #firstFree(): number {
    const { numbers } = this.#memory;
    for (;;) {
      const cluster = this.#refcounts.firstUncounted(numbers[NEXT_FREE] ?? 0);
      if (cluster < 0) return cluster;
      numbers[NEXT_FREE] = cluster;
      const use = this.#useOf(cluster);
      if (use <= 0) return use === 0 ? cluster : use;
      numbers[NEXT_FREE] = cluster + 1;
    }
  }

  /** Without the lock: whether what ends there is counted as written, so that the file is never made shorter than that. */
  isInside(endBytes: number): boolean {
    return endBytes <= (this.#memory.numbers[FRESH_FROM] ?? 0) * this.#clusterBytes;
  }

  /** A cluster that was not allocated here has been written. */
  wasWritten(cluster: number): void {
    const { numbers } = this.#memory;
    numbers[FRESH_FROM] = Math.max(numbers[FRESH_FROM] ?? 0, cluster + 1);
  }

  /** Has the file reach to `endBytes` at least; a device always does. Answers 0 or a positive errno. */
  reach(endBytes: number): number {
    const { numbers } = this.#memory;
    if (endBytes <= (numbers[REACHED] ?? 0)) return 0;
    const fileBytes = this.#calls.seek(this.#fd, 0, END_OF_FILE);
    const result = fileBytes < endBytes ? this.#calls.truncate(this.#fd, endBytes) : 0;
    if (result === 0) numbers[REACHED] = endBytes;
    return 0 - result;
  }

  /** Takes back what was allocated and nothing points to yet. */
  cancel(first: number, count: number): void {
    for (let cluster = first; cluster < first + count; cluster += 1) this.#refcounts.set(cluster, 0);
    const { numbers } = this.#memory;
    numbers[NEXT_FREE] = Math.min(numbers[NEXT_FREE] ?? 0, first);
  }

  /** Whether `ranges` more can be dropped before `settle` is asked. */
  hasRoom(ranges: number): boolean {
    return (this.#memory.numbers[DROPPED_COUNT] ?? 0) + ranges <= RANGES_MAX;
  }

  /** Whether `settle` has something to do. */
  get frees(): boolean {
    const { numbers } = this.#memory;
    const lent = numbers[LENT_COUNT] ?? 0;
    if ((numbers[DROPPED_COUNT] ?? 0) > 0 || (numbers[FREEING_COUNT] ?? 0) > lent) return true;
    return lent > 0 && this.#turns?.areLent !== true;
  }

  /** Nothing in memory points to the clusters any more, once each. Where there is no room for more, they are lost until a check. */
  drop(first: number, count: number): void {
    const { numbers, dropped } = this.#memory;
    pushRange(dropped, numbers, DROPPED_COUNT, first, count);
  }

  /** Everything that is in memory is in the file, on stable storage. */
  settle(): number {
    const { numbers, dropped, freeing } = this.#memory;
    const errno = this.#free();
    const lent = numbers[LENT_COUNT] ?? 0;
    if (errno !== 0 || (numbers[FREEING_COUNT] ?? 0) > lent) return errno;
    const waiting = numbers[DROPPED_COUNT] ?? 0;
    const count = Math.min(waiting, RANGES_MAX - lent);
    if (count === 0) return 0;
    freeing.set(dropped.subarray(0, 2 * count), 2 * lent);
    dropped.copyWithin(0, 2 * count, 2 * waiting);
    numbers[FREEING_COUNT] = lent + count;
    numbers[DROPPED_COUNT] = waiting - count;
    this.#turns?.mark();
    return this.#free();
  }

  /** Lowers the refcounts of what nobody can use any more, and gives the storage of what is free back. */
  #free(): number {
    const { numbers, freeing } = this.#memory;
    const ranges = numbers[FREEING_COUNT] ?? 0;
    if (ranges === 0 || this.#turns?.havePassed() === false) return 0;
    const lent = this.#turns?.lentClusters() ?? NO_CLUSTERS;
    const waited = freeing.slice(0, 2 * ranges);
    numbers[FREEING_COUNT] = 0;
    let errno = 0;
    for (let range = 0; range < ranges && errno === 0; range += 1) {
      errno = this.#freeUnlent(waited[2 * range] ?? 0, waited[2 * range + 1] ?? 0, lent);
    }
    numbers[LENT_COUNT] = numbers[FREEING_COUNT] ?? 0;
    return errno;
  }

  /** What is lent to a pipe waits on. */
  #freeUnlent(first: number, count: number, lent: ReadonlySet<number>): number {
    const { numbers, freeing } = this.#memory;
    if (lent.size === 0) return this.#freeRange(first, count);
    const end = first + count;
    for (let from = first; from < end; ) {
      const isLent = lent.has(from);
      let to = from + 1;
      while (to < end && lent.has(to) === isLent) to += 1;
      if (isLent) pushRange(freeing, numbers, FREEING_COUNT, from, to - from);
      const errno = isLent ? 0 : this.#freeRange(from, to - from);
      if (errno !== 0) return errno;
      from = to;
    }
    return 0;
  }

  #freeRange(first: number, count: number): number {
    const { numbers } = this.#memory;
    let holeFrom = first;
    const end = first + count;
    for (let cluster = first; cluster < end; cluster += 1) {
      const refcount = this.#refcounts.get(cluster);
      if (refcount < 0) return -refcount;
      if (refcount === 0 || (refcount === 1 && this.#isTable(cluster) && this.#duties.isTableInUse(cluster))) {
        return this.#duties.markCorrupt();
      }
      const errno = this.#refcounts.set(cluster, refcount - 1);
      if (errno !== 0) return errno;
      if (refcount > 1) {
        this.#punch(holeFrom, cluster);
        holeFrom = cluster + 1;
      } else numbers[NEXT_FREE] = Math.min(numbers[NEXT_FREE] ?? 0, cluster);
    }
    if (holeFrom < end && !this.#cutTail(holeFrom, end)) this.#punch(holeFrom, end);
    return 0;
  }

  /** What is free at the end of the file goes. */
  #cutTail(first: number, end: number): boolean {
    const { numbers } = this.#memory;
    if (numbers[FRESH_FROM] !== end || this.#calls.seek(this.#fd, 0, END_OF_FILE) > end * this.#clusterBytes)
      return false;
    if (this.#calls.truncate(this.#fd, first * this.#clusterBytes) !== 0) return false;
    numbers[FRESH_FROM] = first;
    numbers[REACHED] = 0;
    this.reserved.forget();
    return true;
  }

  /** That the storage is kept where this cannot be done is no error. */
  #punch(first: number, end: number): void {
    if (first >= end) return;
    this.#calls.fallocate(this.#fd, PUNCH_HOLE, first * this.#clusterBytes, (end - first) * this.#clusterBytes);
  }

  /** 0: the cluster is free; 1: it is used, perhaps as of now, by a refcount block. Answers −errno for what makes no sense. */
  #useOf(cluster: number): number {
    const block = this.#refcounts.blockOffset(cluster);
    if (block < 0) return -EIO;
    if (block === 0) return this.#isTable(cluster) ? this.#tableUse(cluster) : this.#makeBlock(cluster);
    const refcount = this.#refcounts.get(cluster);
    if (refcount < 0) return refcount;
    if (refcount > 0) return 1;
    return this.#isTable(cluster) ? this.#tableUse(cluster) : 0;
  }

  /** A table that has moved away lies in what is free now; one that is in use does not. */
  #tableUse(cluster: number): number {
    return this.#duties.isTableInUse(cluster) ? -this.#duties.markCorrupt() : 1;
  }

  #isTable(cluster: number): boolean {
    const { numbers } = this.#memory;
    const table = (numbers[TABLE_OFFSET] ?? 0) / this.#clusterBytes;
    if (cluster >= table && cluster < table + (numbers[TABLE_CLUSTERS] ?? 0)) return true;
    return this.areas.hasAny(cluster, 1);
  }

  /** The first cluster that no block tells of becomes the block that does. Answers 1 or −errno. */
  #makeBlock(cluster: number): number {
    const block = Math.floor(cluster / this.#refcounts.blockEntries);
    if (block >= this.#refcounts.tableEntries) {
      const errno = this.#duties.growTable(cluster);
      return errno === 0 ? 1 : -errno;
    }
    const errno = this.takeAsBlock(block, cluster);
    return errno === 0 ? 1 : -errno;
  }

  /** A free cluster becomes a refcount block, in which its own refcount may stand: both reach the file together. */
  takeAsBlock(block: number, cluster: number): number {
    const { numbers } = this.#memory;
    let errno = this.areas.hasRoom(1) ? this.#refcounts.makeRoom(cluster) : EFBIG;
    if (errno === 0) errno = this.#duties.writeZeroCluster(cluster);
    if (errno !== 0) return errno;
    numbers[FRESH_FROM] = Math.max(numbers[FRESH_FROM] ?? 0, cluster + 1);
    this.areas.add(cluster, REFCOUNT_BLOCK);
    this.#refcounts.setTableEntry(block, cluster * this.#clusterBytes);
    return this.#refcounts.blockOffset(cluster) > 0 ? this.#refcounts.set(cluster, 1) : 0;
  }

  /** A cluster that was allocated holds an L2 table from now on. */
  takeAsTable(cluster: number): void {
    this.areas.add(cluster, L2_TABLE);
  }
}
