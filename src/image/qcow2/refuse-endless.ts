import { ImageError } from '../errors.js';
import type { OpenFile } from '../open-file.js';
import { CLUSTER_BITS_MIN, type Header } from './header.js';
import { readAt } from './read-at.js';
import { snapshotsOf } from './snapshots.js';

const ENTRY_BYTES = 8;
const STAT_BLOCK_BYTES = 512;
const CLUSTER_BYTES_MIN = 2 ** CLUSTER_BITS_MIN;
/** Of a file, whatever is stored of it: 1 TiB with clusters of 64 KiB. */
const CLUSTERS_FREE = 2 ** 24;
/** Of any file: 16 TiB with clusters of 64 KiB. */
const CLUSTERS_MAX = 2 ** 28;
/** Of L2 tables that are looked through, a table that is pointed to twice counted twice. */
const TABLE_BYTES_MAX = 2 ** 34;
/** L1 tables are small beside L2 tables. */
const L1_SHARE = 16;

/**
 * Before refcounts are made right while an image is opened: to look through it may take a minute, and memory for a number a
 * cluster. A file that is mostly holes, and tables that are pointed to again and again, would have it take days.
 *
 * @throws ImageError 'damaged'
 */
export function refuseEndless(path: string, file: OpenFile, header: Header): void {
  const clusterBytes = 2 ** header.clusterBits;
  const storedBytes = file.stat.isFile() ? file.stat.blocks * STAT_BLOCK_BYTES : file.fileBytes;
  const clustersMax = Math.min(CLUSTERS_MAX, Math.max(CLUSTERS_FREE, storedBytes / CLUSTER_BYTES_MIN));
  if (Math.ceil(file.fileBytes / clusterBytes) > clustersMax) throw refusal(path);
  const tables = [header, ...snapshotsOf(path, file, header).snapshots].map(({ l1OffsetBytes, l1Entries }) => {
    return { offsetBytes: Number(l1OffsetBytes), bytes: l1Entries * ENTRY_BYTES };
  });
  const l1Bytes = tables.reduce((sum, { bytes }) => sum + bytes, 0);
  if (l1Bytes > TABLE_BYTES_MAX / L1_SHARE) throw refusal(path);
  let tableBytes = 0;
  for (const { offsetBytes, bytes } of tables) {
    if (offsetBytes + bytes > file.fileBytes) throw refusal(path);
    const l1 = new BigUint64Array(readAt(path, file.fd, offsetBytes, bytes).buffer);
    for (const entry of l1) if (entry !== 0n) tableBytes += clusterBytes;
    if (tableBytes > TABLE_BYTES_MAX) throw refusal(path);
  }
}

function refusal(path: string): ImageError {
  const why = `${path} was not closed by its last writer, and to make its refcounts right would take too long`;
  return new ImageError('damaged', `${why}; repair it with: tsnbd check -r all ${path}`);
}
