import type { Geometry } from './geometry.js';
import { type CacheMemory, newCacheMemory, sharedWords } from './slice-cache.js';

/**
 * What an image's L2 tables may take of memory: with clusters of 64 KiB enough for 256 GiB of the disk, of 128 GiB with
 * subclusters. It becomes resident as it is used.
 */
const L2_CACHE_BYTES_MAX = 32 << 20;

const ENTRY_WORDS = 2;

/** The fields of `Qcow2Memory.fields`. */
export const METADATA_LOCK = 0;
const FIELDS = 8;

/** What all workers of an image know of its tables; it crosses threads. */
export interface Qcow2Memory {
  /**
   * | field | who writes | meaning |
   * | --- | --- | --- |
   * | METADATA_LOCK | whoever takes or leaves the lock | as SYNC_LOCK of shared-layout.ts |
   */
  readonly fields: Int32Array<SharedArrayBuffer>;
  /** The active L1 table as it stands in the file, two words an entry. */
  readonly l1: Int32Array<SharedArrayBuffer>;
  readonly l2: CacheMemory;
}

export function newQcow2Memory({ l1Entries, slices, sliceBytes }: Geometry): Qcow2Memory {
  return {
    fields: sharedWords(FIELDS),
    l1: sharedWords(l1Entries * ENTRY_WORDS),
    l2: newCacheMemory(slices, sliceBytes, L2_CACHE_BYTES_MAX),
  };
}
