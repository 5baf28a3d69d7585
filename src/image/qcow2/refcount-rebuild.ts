import { constants } from 'node:os';
import { errnoText } from '../../kernel/errno.js';
import { ImageError } from '../errors.js';
import { fileCalls } from '../file-calls.js';
import type { OpenFile } from '../open-file.js';
import type { Qcow2Handle } from './handle.js';
import type { Header } from './header.js';
import { L2Tables } from './l2-tables.js';
import { snapshotsOf } from './open-writable.js';
import { RefcountCensus } from './refcount-census.js';
import { WriteOrder } from './write-order.js';

const { ENOSPC } = constants.errno;

/**
 * Makes the refcounts of an image right whose last writer has left it dirty: it had postponed them (qcow2.rst, 'Dirty
 * bit'). Nothing else may be written before.
 *
 * @throws ImageError 'damaged' where that cannot be done safely, 'system' where it cannot be written
 */
export function rebuildRefcounts(path: string, file: OpenFile, header: Header, handle: Qcow2Handle): void {
  const { geometry, memory, fd } = handle;
  if (memory.write === undefined || !header.isDirty) return;
  const { snapshots, tableBytes } = snapshotsOf(path, file, header);
  const census = new RefcountCensus(path, file, header, geometry, snapshots);
  if (snapshots.length > 0) census.useRange(header.snapshotsOffsetBytes, tableBytes);
  const order = new WriteOrder(
    handle,
    memory.write,
    new L2Tables(geometry, memory, fd, fileCalls),
    fileCalls,
    undefined,
  );
  census.useRefcounts(order.refcounts, header);
  if (census.hasFalseCopied || header.bitmaps !== undefined) throw refusal(path);
  let errno = 0;
  for (let cluster = 0; cluster < census.counts.length && errno === 0; cluster += 1) {
    errno = setRight(path, order, census.counts, cluster, 2 ** geometry.refcountBits);
  }
  if (errno === 0) {
    order.willPoint();
    errno = order.flush();
  }
  if (errno === 0) errno = order.markClean();
  if (errno !== 0) throw new ImageError('system', `the refcounts of ${path} could not be rebuilt: ${errnoText(errno)}`);
}

function setRight(path: string, order: WriteOrder, counts: Uint32Array, cluster: number, limit: number): number {
  const { refcounts, allocator } = order;
  const count = counts[cluster] ?? 0;
  const counted = refcounts.get(cluster);
  if (counted < 0) return -counted;
  if (counted === count) return 0;
  if (count >= limit) throw refusal(path);
  if (refcounts.blockOffset(cluster) === 0) {
    const block = Math.floor(cluster / refcounts.blockEntries);
    const free = freeCluster(counts, block * refcounts.blockEntries, refcounts.blockEntries);
    if (free < 0 || block >= refcounts.tableEntries) return ENOSPC;
    if (free < counts.length) counts[free] = 1;
    const errno = allocator.takeAsBlock(block, free);
    if (errno !== 0) return errno;
  }
  return refcounts.set(cluster, count);
}

/** Among those that a new block tells of, one that it can be; −1 where there is none. */
function freeCluster(counts: Uint32Array, from: number, length: number): number {
  for (let cluster = from; cluster < from + length; cluster += 1) if ((counts[cluster] ?? 0) === 0) return cluster;
  return -1;
}

function refusal(path: string): ImageError {
  const why = `${path} was not closed by its last writer, and its refcounts cannot be rebuilt here`;
  return new ImageError('damaged', `${why}; repair it with: qemu-img check -r all ${path}`);
}
