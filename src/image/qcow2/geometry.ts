import type { Compression, Header } from './header.js';

/** L2 tables are read, cached and written in slices of this, or whole where clusters are smaller. */
const SLICE_BYTES_MAX = 4096;
const UNITS_EXTENDED = 32;

/** The numbers of an image that never change while it is open; can be sent to workers. */
export interface Geometry {
  readonly version: 2 | 3;
  readonly sizeBytes: number;
  readonly clusterBits: number;
  readonly clusterBytes: number;
  readonly compression: Compression;
  /** Each entry has a bitmap of subclusters beside its descriptor. */
  readonly extendedL2: boolean;
  /** What can be allocated by itself: a cluster, or one of 32 subclusters. */
  readonly unitsPerCluster: number;
  readonly unitBytes: number;
  readonly hasDataFile: boolean;
  readonly rawDataFile: boolean;
  readonly l1OffsetBytes: number;
  readonly l1Entries: number;
  readonly l2EntryBytes: number;
  /** Guest clusters that a table, and a slice of one, tell of. */
  readonly l2Entries: number;
  readonly sliceBytes: number;
  readonly sliceEntries: number;
  readonly slicesPerTable: number;
  /** Slices of all L2 tables, allocated or not. */
  readonly slices: number;
  readonly refcountBits: number;
}

export function l2EntryBytesOf(extendedL2: boolean): number {
  return extendedL2 ? 16 : 8;
}

export function geometryOf(header: Header): Geometry {
  const { version, sizeBytes, clusterBits, compression, extendedL2, hasDataFile, rawDataFile } = header;
  const clusterBytes = 2 ** clusterBits;
  const l2EntryBytes = l2EntryBytesOf(extendedL2);
  const sliceBytes = Math.min(SLICE_BYTES_MAX, clusterBytes);
  const unitsPerCluster = extendedL2 ? UNITS_EXTENDED : 1;
  const l2Entries = clusterBytes / l2EntryBytes;
  const slicesPerTable = clusterBytes / sliceBytes;
  const l1EntriesUsed = Math.ceil(sizeBytes / (l2Entries * clusterBytes));
  return {
    version,
    sizeBytes,
    clusterBits,
    clusterBytes,
    compression,
    extendedL2,
    unitsPerCluster,
    unitBytes: clusterBytes / unitsPerCluster,
    hasDataFile,
    rawDataFile,
    l1OffsetBytes: header.l1OffsetBytes,
    l1Entries: header.l1Entries,
    l2EntryBytes,
    l2Entries,
    sliceBytes,
    sliceEntries: sliceBytes / l2EntryBytes,
    slicesPerTable,
    slices: l1EntriesUsed * slicesPerTable,
    refcountBits: 2 ** header.refcountOrder,
  };
}

/** Clusters or subclusters of `stepBytes` that lie in a range as a whole: from where, and to where. The disk ends with a whole one. */
export function wholesIn(
  { sizeBytes }: Geometry,
  stepBytes: number,
  offsetBytes: number,
  length: number,
): readonly [number, number] {
  const from = Math.ceil(offsetBytes / stepBytes) * stepBytes;
  const end = offsetBytes + length;
  const to = end === sizeBytes ? end : Math.floor(end / stepBytes) * stepBytes;
  return from < to ? [from, to] : [offsetBytes, offsetBytes];
}
