import { invariant } from '../../base/invariant.js';
import { refcountBlock } from './create-qcow2.js';
import { L1_BYTES_MAX } from './header.js';
import { newHeader } from './new-header.js';
import { layoutOf, type NewBacking, type NewQcow2 } from './new-layout.js';

const CLUSTER_BYTES = 65_536;
/** Where the L1 table would be too long else. */
const CLUSTER_BYTES_LARGE = 2_097_152;
const ENTRY_BYTES = 8;
const SIZE_BYTES_LARGE = (L1_BYTES_MAX / ENTRY_BYTES) * (CLUSTER_BYTES / ENTRY_BYTES) * CLUSTER_BYTES;
const REFCOUNT_BITS = 16;

/** An image as its first bytes; what follows `head`, up to `fileBytes`, is zeroes. */
export interface EmptyImage {
  readonly head: Uint8Array;
  readonly fileBytes: number;
}

/**
 * A qcow2 image on a backing file, to which nothing was written yet. `path` is what it is called in errors.
 *
 * @throws ImageError 'unsupported'
 */
export function emptyOverlay(path: string, sizeBytes: number, backing: Omit<NewBacking, 'isLookedAt'>): EmptyImage {
  const form: NewQcow2 = {
    format: 'qcow2',
    version: 3,
    clusterBytes: sizeBytes > SIZE_BYTES_LARGE ? CLUSTER_BYTES_LARGE : CLUSTER_BYTES,
    refcountBits: REFCOUNT_BITS,
    extendedL2: false,
    lazyRefcounts: false,
    compression: 'zlib',
    preallocation: 'off',
    dataFile: undefined,
    backing: { ...backing, isLookedAt: false },
  };
  const layout = layoutOf(path, form, sizeBytes);
  const { clusters, l1From, refcountTableClusters, refcountBlocks } = layout;
  invariant(
    refcountTableClusters === 1 && refcountBlocks === 1,
    'the tables of an empty image have one refcount block',
  );
  const head = new Uint8Array(l1From * form.clusterBytes);
  head.set(newHeader(path, layout));
  new DataView(head.buffer).setBigUint64(form.clusterBytes, BigInt(2 * form.clusterBytes));
  head.set(refcountBlock(clusters, REFCOUNT_BITS), 2 * form.clusterBytes);
  return { head, fileBytes: clusters * form.clusterBytes };
}
