import { WriteCursor } from '../../base/cursor.js';
import { L1_BYTES_MAX, MAGIC, V2_REFCOUNT_ORDER, V3_BYTES_MIN } from './header.js';

const VERSION = 3;
const CLUSTER_BITS = 16;
/** Where the L1 table would be too long else. */
const CLUSTER_BITS_LARGE = 21;
const ENTRY_BYTES = 8;
const REFCOUNT_BYTES = 2 ** V2_REFCOUNT_ORDER / 8;
const BACKING_NAME_AT = 1024;

/** An image as its first bytes; what follows `head`, up to `fileBytes`, is zeroes. */
export interface EmptyImage {
  readonly head: Uint8Array;
  readonly fileBytes: number;
}

/**
 * A qcow2 image on a backing file, to which nothing was written yet (qcow2.rst, 'Header', 'Host cluster management'): header,
 * refcount table, refcount block and L1 table, in this order. `backingName` is a name in a folder, of at most 255 bytes.
 */
export function emptyOverlay(sizeBytes: number, backingName: string): EmptyImage {
  const clusterBits = l1Bytes(sizeBytes, CLUSTER_BITS) > L1_BYTES_MAX ? CLUSTER_BITS_LARGE : CLUSTER_BITS;
  const clusterBytes = 2 ** clusterBits;
  const l1Clusters = Math.max(1, Math.ceil(l1Bytes(sizeBytes, clusterBits) / clusterBytes));
  const [tableAt, blockAt, l1At] = [clusterBytes, 2 * clusterBytes, 3 * clusterBytes];
  const clusters = 3 + l1Clusters;
  const name = Buffer.from(backingName);
  const header = new WriteCursor(V3_BYTES_MIN);
  header.u32be(MAGIC).u32be(VERSION);
  header.u64be(BigInt(BACKING_NAME_AT)).u32be(name.length);
  header.u32be(clusterBits).u64be(BigInt(sizeBytes));
  header.u32be(0); // not encrypted
  header.u32be(l1Bytes(sizeBytes, clusterBits) / ENTRY_BYTES).u64be(BigInt(l1At));
  header.u64be(BigInt(tableAt)).u32be(1);
  header.u32be(0).u64be(0n); // no snapshots
  header.u64be(0n).u64be(0n).u64be(0n); // no features
  header.u32be(V2_REFCOUNT_ORDER).u32be(V3_BYTES_MIN);

  const head = new Uint8Array(l1At);
  head.set(header.finish());
  head.set(name, BACKING_NAME_AT);
  const view = new DataView(head.buffer);
  view.setBigUint64(tableAt, BigInt(blockAt));
  for (let cluster = 0; cluster < clusters; cluster += 1) view.setUint16(blockAt + cluster * REFCOUNT_BYTES, 1);
  return { head, fileBytes: clusters * clusterBytes };
}

function l1Bytes(sizeBytes: number, clusterBits: number): number {
  const l2Entries = 2 ** clusterBits / ENTRY_BYTES;
  return Math.ceil(sizeBytes / (l2Entries * 2 ** clusterBits)) * ENTRY_BYTES;
}
