import { constants } from 'node:os';
import type { StableStorage } from '../stable-storage.js';
import type { Allocator } from './allocator.js';
import type { DroppedClusters } from './dropped-clusters.js';
import type { Geometry } from './geometry.js';
import { REFCOUNT_TABLE_BYTES_MAX } from './header.js';
import {
  FRESH_FROM,
  TABLE_CLUSTERS,
  TABLE_DIRTY_FROM,
  TABLE_DIRTY_TO,
  TABLE_OFFSET,
  TABLE_ROOM,
  type WriteMemory,
} from './memory.js';
import type { Refcounts } from './refcounts.js';

const { EFBIG } = constants.errno;
const ENTRY_BYTES = 8;
/** Where the header has the table's offset (8 bytes) and its length in clusters (4 bytes). */
export const REFCOUNT_TABLE_PLACE = 48;
const GROWTH = 1.5;

/** What the growth of the table is done with. */
export interface TableGrowth {
  readonly refcounts: Refcounts;
  readonly allocator: Allocator;
  readonly dropped: DroppedClusters;
  readonly storage: StableStorage;
  checkUntaken(offsetBytes: number, length: number): number;
  writeLocked(): number;
  writeRefcounts(): number;
  writeTable(offsetBytes: number): number;
}

/**
 * Makes the refcount table longer, under the image's lock: a new one is written from `cluster` on, behind all that the old
 * one told of, and behind it the blocks that tell of both. The header points to it when all of that is on stable storage;
 * then the old table is dropped. Answers 0 or a positive errno;
 * half-way, TABLE_ROOM is not TABLE_CLUSTERS any more.
 */
export function growRefcountTable(
  cluster: number,
  { clusterBytes }: Geometry,
  { numbers }: WriteMemory,
  growth: TableGrowth,
  writeHeader: (at: number, bytes: Uint8Array) => number,
): number {
  const { refcounts, allocator } = growth;
  const oldOffset = numbers[TABLE_OFFSET] ?? 0;
  const oldClusters = numbers[TABLE_CLUSTERS] ?? 0;
  const { blockEntries } = refcounts;
  const firstBlock = Math.floor(cluster / blockEntries);
  let entries = Math.max(firstBlock + 1, Math.ceil(refcounts.tableEntries * GROWTH));
  let clusters = 0;
  let blocks = 0;
  for (let before = -1; before !== clusters + blocks; ) {
    before = clusters + blocks;
    clusters = Math.ceil((entries * ENTRY_BYTES) / clusterBytes);
    const lastBlock = Math.floor((cluster + clusters + blocks) / blockEntries);
    blocks = lastBlock - firstBlock + 1;
    entries = Math.max(entries, lastBlock + 1);
  }
  if (clusters * clusterBytes > REFCOUNT_TABLE_BYTES_MAX || !allocator.areas.hasRoom(blocks)) return EFBIG;
  const end = cluster + clusters + blocks;
  // No refcount tells of what lies there: a table that nothing counts may.
  let errno = growth.checkUntaken(cluster * clusterBytes, (end - cluster) * clusterBytes);
  // From here on until the header points to the new table, no room for a refcount may have to be made.
  if (errno === 0) errno = growth.writeLocked();
  if (errno !== 0) return errno;

  numbers[TABLE_ROOM] = clusters;
  for (let block = 0; block < blocks && errno === 0; block += 1) {
    errno = allocator.takeAsBlock(firstBlock + block, cluster + clusters + block);
  }
  for (let used = cluster; used < end && errno === 0; used += 1) errno = refcounts.set(used, 1);
  numbers[FRESH_FROM] = Math.max(numbers[FRESH_FROM] ?? 0, end);
  // The new blocks stand in the new table alone.
  numbers[TABLE_DIRTY_FROM] = numbers[TABLE_DIRTY_TO] ?? 0;
  if (errno === 0) errno = growth.writeRefcounts();
  if (errno === 0) errno = growth.writeTable(cluster * clusterBytes);
  if (errno === 0) errno = growth.storage.flush();
  if (errno === 0) errno = writeHeader(REFCOUNT_TABLE_PLACE, headerPlace(cluster * clusterBytes, clusters));
  if (errno !== 0) return errno;
  // In this order: whoever looks in between takes no cluster for a part of the table that never was one.
  numbers[TABLE_OFFSET] = cluster * clusterBytes;
  numbers[TABLE_CLUSTERS] = clusters;
  growth.dropped.drop(oldOffset / clusterBytes, oldClusters);
  return 0;
}

/** What stands there. */
export function headerPlace(offsetBytes: number, clusters: number): Uint8Array {
  const bytes = new Uint8Array(12);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(offsetBytes));
  view.setUint32(8, clusters);
  return bytes;
}
