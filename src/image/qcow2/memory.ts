import type { Geometry } from './geometry.js';
import { REFCOUNT_TABLE_BYTES_MAX } from './header.js';
import { type AreasMemory, newAreasMemory } from './metadata-areas.js';
import { type CacheMemory, newCacheMemory, sharedWords } from './slice-cache.js';
import { newTurnsMemory, type TurnsMemory } from './worker-turns.js';

/**
 * What an image's L2 tables may take of memory: with clusters of 64 KiB enough for 128 GiB of the disk, of 64 GiB with
 * subclusters. It becomes resident as it is used.
 */
const L2_CACHE_BYTES_MAX = 16 << 20;
/** The same for refcounts: with clusters of 64 KiB and 16 bits each, enough for 128 GiB of the file. */
const REFCOUNT_CACHE_BYTES_MAX = 4 << 20;
/** Ranges of clusters that wait for being free. */
export const RANGES_MAX = 8_192;

const ENTRY_WORDS = 2;
const RANGE_NUMBERS = 2;

// The fields of `Qcow2Memory.fields`.
export const METADATA_LOCK = 0;
export const IS_CORRUPT = 1;
export const IS_PREPARED = 2;
export const IS_DIRTY = 3;
const FIELDS = 8;

// The numbers of `WriteMemory.numbers`.
export const NEXT_FREE = 0;
export const FRESH_FROM = 1;
export const TABLE_OFFSET = 2;
export const TABLE_CLUSTERS = 3;
export const L1_DIRTY_FROM = 4;
export const L1_DIRTY_TO = 5;
export const TABLE_DIRTY_FROM = 6;
export const TABLE_DIRTY_TO = 7;
export const DROPPED_COUNT = 8;
export const FREEING_COUNT = 9;
export const REACHED = 10;
export const TABLE_ROOM = 11;
export const LENT_COUNT = 12;
export const RESERVED_TO = 13;
export const POINTED = 14;
export const POINTED_SYNCED = 15;
export const DROPPED_GONE = 16;
export const DROPPED_SEALED = 17;
export const L1_CHANGES = 18;
export const L1_WRITTEN = 19;
export const TABLE_CHANGES = 20;
export const TABLE_WRITTEN = 21;
const NUMBERS = 22;

/** What all workers of an image know of its tables; it crosses threads. */
export interface Qcow2Memory {
  /**
   * | field | who writes | meaning |
   * | --- | --- | --- |
   * | METADATA_LOCK | whoever takes or leaves the lock | as SYNC_LOCK of shared-layout.ts |
   * | IS_CORRUPT | whoever sees it, once | 1: the tables contradict each other; nothing is written any more; ../trouble.ts waits for it |
   * | IS_PREPARED | under the lock, once | 1: the header says nothing any more that a write would make untrue |
   * | IS_DIRTY | under the lock | 1: some table is not yet in the file |
   */
  readonly fields: Int32Array<SharedArrayBuffer>;
  /** The active L1 table as it stands in the file, two words an entry. */
  readonly l1: Int32Array<SharedArrayBuffer>;
  readonly l2: CacheMemory;
  /** Absent for an image that is only read. */
  readonly write: WriteMemory | undefined;
}

/** All of it is written under the lock, `turns` aside. */
export interface WriteMemory {
  /**
   * | number | meaning |
   * | --- | --- |
   * | NEXT_FREE | no cluster before this one is free |
   * | FRESH_FROM | from this cluster on nothing was ever written: the file reads as zeroes |
   * | TABLE_OFFSET, TABLE_CLUSTERS | where the refcount table is, and how long; read without the lock too |
   * | TABLE_ROOM | how long it is in memory: longer than in the file while it grows |
   * | L1_DIRTY_FROM, L1_DIRTY_TO | entries that are not yet in the file; none if equal |
   * | L1_CHANGES, L1_WRITTEN | how often entries changed, and how often they had when the file was given them last |
   * | TABLE_DIRTY_FROM, TABLE_DIRTY_TO, TABLE_CHANGES, TABLE_WRITTEN | the same for the refcount table |
   * | REACHED | the file has at least so many bytes |
   * | RESERVED_TO | up to this byte the file was given storage ahead of new clusters, behind its end too; 0: nothing was |
   * | POINTED | goes up when L2 or L1 entries are changed to point to something new, and when refcounts, or which blocks they are in, are written ahead of a sync |
   * | POINTED_SYNCED | what POINTED was when all that entries pointed to came to stable storage; where they differ something may not be there |
   * | DROPPED_COUNT, FREEING_COUNT | how many ranges `dropped` and `freeing` have |
   * | DROPPED_GONE | how many ranges have left `dropped`, its first ones |
   * | DROPPED_SEALED | the ranges that came to `dropped` before this one, counted from its beginning, stay as they are: somebody's sync is theirs |
   * | LENT_COUNT | how many of `freeing`, the first ones, wait for nothing but for being read out of a pipe |
   */
  readonly numbers: Float64Array<SharedArrayBuffer>;
  /** As it stands in the file, two words an entry; room for the longest. */
  readonly refcountTable: Int32Array<SharedArrayBuffer>;
  readonly refcounts: CacheMemory;
  /** Ranges (first cluster, count) that no entry points to any more, which may not yet be on stable storage. */
  readonly dropped: Float64Array<SharedArrayBuffer>;
  /** Ranges that no entry in the file points to, but perhaps a worker still does. */
  readonly freeing: Float64Array<SharedArrayBuffer>;
  readonly areas: AreasMemory;
  readonly turns: TurnsMemory;
}

/** Nothing is written any more. Answers whether that is news. */
export function setCorrupt(fields: Qcow2Memory['fields']): boolean {
  const isNews = Atomics.exchange(fields, IS_CORRUPT, 1) === 0;
  Atomics.notify(fields, IS_CORRUPT);
  return isNews;
}

/** `blocksMax`: refcount blocks that the image may name. */
export function newQcow2Memory(geometry: Geometry, readOnly: boolean, blocksMax: number): Qcow2Memory {
  const { l1Entries, slices, sliceBytes } = geometry;
  return {
    fields: sharedWords(FIELDS),
    l1: sharedWords(l1Entries * ENTRY_WORDS),
    l2: newCacheMemory(slices, sliceBytes, L2_CACHE_BYTES_MAX),
    write: readOnly ? undefined : newWriteMemory(geometry, blocksMax),
  };
}

function newWriteMemory({ slices, slicesPerTable, sliceBytes }: Geometry, blocksMax: number): WriteMemory {
  // Each L2 table and, where a snapshot has it too, its copy, and refcount blocks for all that these point to.
  const tablesMax = blocksMax + 3 * (slices / slicesPerTable);
  return {
    numbers: sharedNumbers(NUMBERS),
    refcountTable: sharedWords(REFCOUNT_TABLE_BYTES_MAX / 4),
    refcounts: newCacheMemory(Number.MAX_SAFE_INTEGER, sliceBytes, REFCOUNT_CACHE_BYTES_MAX),
    dropped: sharedNumbers(RANGES_MAX * RANGE_NUMBERS),
    freeing: sharedNumbers(RANGES_MAX * RANGE_NUMBERS),
    areas: newAreasMemory(tablesMax),
    turns: newTurnsMemory(),
  };
}

export function sharedNumbers(count: number): Float64Array<SharedArrayBuffer> {
  return new Float64Array(new SharedArrayBuffer(count * Float64Array.BYTES_PER_ELEMENT));
}
