import { constants } from 'node:os';
import { END_OF_FILE } from '../../kernel/fd-calls.js';
import type { FileCalls } from '../file-calls.js';
import type { Geometry } from './geometry.js';
import { FRESH_FROM, NEXT_FREE, REACHED, TABLE_CLUSTERS, TABLE_OFFSET, type WriteMemory } from './memory.js';
import { L2_TABLE, MetadataAreas, REFCOUNT_BLOCK } from './metadata-areas.js';
import type { Refcounts } from './refcounts.js';
import { ReservedStorage } from './reserved-storage.js';

const { EFBIG, EIO } = constants.errno;

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

/** Gives clusters of the file to who needs them; all under the image's lock. */
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
  readonly #clusterBytes: number;
  readonly #fd: number;
  readonly #calls: FileCalls;

  constructor(
    { clusterBytes }: Geometry,
    memory: WriteMemory,
    refcounts: Refcounts,
    duties: AllocatorDuties,
    file: { readonly fd: number; readonly calls: FileCalls },
  ) {
    this.areas = new MetadataAreas(memory.areas);
    this.reserved = new ReservedStorage(memory, file);
    this.#refcounts = refcounts;
    this.#memory = memory;
    this.#duties = duties;
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

  /** 0: the cluster is free; 1: it is used, perhaps as of now, by a refcount block. Answers −errno for what makes no sense. */
  #useOf(cluster: number): number {
    const block = this.#refcounts.blockOffset(cluster);
    if (block < 0) return -EIO;
    if (block === 0) return this.isTable(cluster) ? this.#tableUse(cluster) : this.#makeBlock(cluster);
    const refcount = this.#refcounts.get(cluster);
    if (refcount < 0) return refcount;
    if (refcount > 0) return 1;
    return this.isTable(cluster) ? this.#tableUse(cluster) : 0;
  }

  /** A table that has moved away lies in what is free now; one that is in use does not. */
  #tableUse(cluster: number): number {
    return this.#duties.isTableInUse(cluster) ? -this.#duties.markCorrupt() : 1;
  }

  /** Whether a cluster holds a table, or has held one. */
  isTable(cluster: number): boolean {
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
