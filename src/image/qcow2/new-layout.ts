import { ImageError } from '../errors.js';
import type { ImageFormat } from '../image-format.js';
import type { Qcow2Preallocation } from '../preallocations.js';
import { l2EntryBytesOf } from './geometry.js';
import { type Compression, L1_BYTES_MAX, REFCOUNT_TABLE_BYTES_MAX } from './header.js';

const ENTRY_BYTES = 8;

/** What a new qcow2 image is to be. Its clusters and refcounts have sizes that the format knows. */
export interface NewQcow2 {
  readonly format: 'qcow2';
  readonly version: 2 | 3;
  readonly clusterBytes: number;
  readonly refcountBits: number;
  readonly extendedL2: boolean;
  readonly lazyRefcounts: boolean;
  readonly compression: Compression;
  readonly preallocation: Qcow2Preallocation;
  readonly dataFile: { readonly name: string; readonly isRaw: boolean } | undefined;
  readonly backing: NewBacking | undefined;
}

export interface NewBacking {
  readonly name: string;
  readonly format: ImageFormat;
  /** Opened, to see that it is there. */
  readonly isLookedAt: boolean;
}

/** Where the tables of a new image lie, one behind the other, each from a cluster of its own on; sizes in clusters where not said. */
export interface Layout {
  readonly form: NewQcow2;
  readonly sizeBytes: number;
  readonly refcountTableClusters: number;
  readonly refcountBlocks: number;
  readonly l1Entries: number;
  readonly l1From: number;
  /** 0 where nothing is preallocated. */
  readonly l2Tables: number;
  readonly l2From: number;
  /** What the tables point to, in the image or its data file. */
  readonly dataClusters: number;
  /** In the image itself; after its tables. */
  readonly dataFrom: number;
  /** Of the image's file, all of them in use. */
  readonly clusters: number;
}

/** @throws ImageError 'unsupported' for a disk that is too large for its clusters */
export function layoutOf(path: string, form: NewQcow2, sizeBytes: number): Layout {
  const { clusterBytes, refcountBits, extendedL2, dataFile } = form;
  const guestClusters = Math.ceil(sizeBytes / clusterBytes);
  const l2Entries = clusterBytes / l2EntryBytesOf(extendedL2);
  const l1Entries = Math.max(1, Math.ceil(guestClusters / l2Entries));
  if (l1Entries * ENTRY_BYTES > L1_BYTES_MAX) throw tooLarge(path, sizeBytes, clusterBytes);
  const l1Clusters = Math.ceil((l1Entries * ENTRY_BYTES) / clusterBytes);
  // A raw data file has every cluster at its own place: whoever reads it need not know the tables.
  const allocates = form.preallocation !== 'off' || dataFile?.isRaw === true;
  const dataClusters = allocates ? guestClusters : 0;
  const l2Tables = allocates ? Math.ceil(guestClusters / l2Entries) : 0;
  const others = 1 + l1Clusters + l2Tables + (dataFile === undefined ? dataClusters : 0);
  const blockEntries = (clusterBytes * 8) / refcountBits;
  let blocks = 0;
  let tableClusters = 0;
  for (let before = -1; before !== blocks + tableClusters; ) {
    before = blocks + tableClusters;
    blocks = Math.ceil((others + before) / blockEntries);
    tableClusters = Math.ceil((blocks * ENTRY_BYTES) / clusterBytes);
  }
  if (tableClusters * clusterBytes > REFCOUNT_TABLE_BYTES_MAX) throw tooLarge(path, sizeBytes, clusterBytes);
  const l1From = 1 + tableClusters + blocks;
  return {
    form,
    sizeBytes,
    refcountTableClusters: tableClusters,
    refcountBlocks: blocks,
    l1Entries,
    l1From,
    l2Tables,
    l2From: l1From + l1Clusters,
    dataClusters,
    dataFrom: l1From + l1Clusters + l2Tables,
    clusters: others + blocks + tableClusters,
  };
}

function tooLarge(path: string, sizeBytes: number, clusterBytes: number): ImageError {
  return new ImageError(
    'unsupported',
    `${path} cannot have ${sizeBytes} bytes with clusters of ${clusterBytes}: the tables of a qcow2 image do not reach so far; larger clusters do`,
  );
}
