import type { Census } from './census.js';
import type { Findings } from './check-findings.js';
import { type CheckedImage, readTable, writeTable } from './checked-image.js';
import { putRefcount, refcountAt } from './refcount-codec.js';
import { SparseNumbers } from './sparse-numbers.js';

/** Which refcounts are made right where they stand: those that are too high, or all. */
export type Repair = 'leaks' | 'all';

/** What the refcounts in the file come to. */
export interface Comparison {
  /** The last cluster that is used or counted. */
  readonly lastCluster: number;
  /** Of each cluster: ONE if it is counted once, UNKNOWN if that cannot be told. */
  readonly counted: SparseNumbers;
  readonly needsRebuild: boolean;
  readonly corruptionsFixed: number;
  readonly leaksFixed: number;
}

export const ONE = 1;
export const UNKNOWN = 2;

/**
 * Holds the refcounts in the file against a census. With `repair` they are set right, each by itself, so that it does not
 * matter where that is cut off: only where no block has to be made or moved.
 *
 * @throws ImageError 'system'
 */
export function compareRefcounts(
  image: CheckedImage,
  census: Census,
  findings: Findings,
  repair: Repair | undefined,
): Comparison {
  const { uses, geometry, blocks } = census;
  const { clusterBytes, refcountBits } = geometry;
  const { clusters, counts } = uses;
  const blockEntries = (clusterBytes * 8) / refcountBits;
  const counted = newCounted(counts.length);
  const bytes = new Uint8Array(clusterBytes);
  let { needsRebuild } = census;
  let lastCluster = 0;
  /** Before it no cluster from `from` on is used. */
  let nextUsed = 0;
  let corruptionsFixed = 0;
  let leaksFixed = 0;
  for (let from = 0; from < clusters; from += blockEntries) {
    const block = from / blockEntries;
    const offsetBytes = blocks[block] ?? 0;
    const end = Math.min(from + blockEntries, clusters);
    if (offsetBytes < 0) {
      for (let cluster = from; cluster < end; cluster += 1) {
        findings.checkError(`the refcount of cluster ${cluster} is not there`);
        counted.set(cluster, UNKNOWN);
      }
      continue;
    }
    const isThere = offsetBytes > 0 && offsetBytes < image.file.fileBytes;
    if (nextUsed < from) nextUsed = counts.next(from);
    if (!isThere && nextUsed >= end) continue;
    if (isThere) readTable(image, offsetBytes, bytes);
    else bytes.fill(0);
    let isChanged = false;
    for (let cluster = from; cluster < end; cluster += 1) {
      const refcount = refcountAt(bytes, 0, cluster - from, refcountBits);
      const used = counts.get(cluster);
      if (refcount === 1) counted.set(cluster, ONE);
      if (refcount > 0 || used > 0) lastCluster = cluster;
      if (refcount === used) {
        if (used > 1 && uses.isShared(cluster))
          findings.corruption(`cluster ${cluster} holds a table and something else`);
        continue;
      }
      const isLeak = refcount > used;
      if (isThere && (repair === 'all' || (repair === 'leaks' && isLeak))) {
        putRefcount(bytes, 0, cluster - from, refcountBits, used);
        counted.set(cluster, used === 1 ? ONE : 0);
        isChanged = true;
        if (isLeak) leaksFixed += 1;
        else corruptionsFixed += 1;
        continue;
      }
      const text = `cluster ${cluster} refcount=${refcount} reference=${used}`;
      if (isLeak) findings.leak(text);
      else findings.corruption(text);
      if (!isLeak && !isThere) needsRebuild = true;
    }
    if (isChanged) writeTable(image, offsetBytes, bytes);
  }
  return { lastCluster, counted, needsRebuild, corruptionsFixed, leaksFixed };
}

/** For `counted` of a comparison. */
export function newCounted(clusters: number): SparseNumbers {
  return new SparseNumbers(clusters, (length) => new Uint8Array(length));
}
