import { ImageError } from '../errors.js';
import type { OpenFile } from '../open-file.js';
import { compressedPlace, hostOffset, isCompressed, isCopied } from './entries.js';
import type { Geometry } from './geometry.js';
import type { Header } from './header.js';
import { readAt } from './read-at.js';
import type { Refcounts } from './refcounts.js';
import type { Snapshot } from './snapshots.js';

const ENTRY_BYTES = 8;
/** Of a file so long that it can only be a lie: 2^31 clusters. */
const CLUSTERS_MAX = 2 ** 31;
const HIGH = 2 ** 32;

/** Counts how often each cluster of a file is used, by all that an image's tables say. */
export class RefcountCensus {
  /** One number a cluster of the file. */
  readonly counts: Uint32Array;
  /** A bit of each: an entry of the disk says that it is used once. */
  readonly #copied: Uint8Array;
  readonly #path: string;
  readonly #file: OpenFile;
  readonly #geometry: Geometry;
  readonly #place = { offsetBytes: 0, lengthBytes: 0 };

  /** @throws ImageError 'damaged' */
  constructor(path: string, file: OpenFile, header: Header, geometry: Geometry, snapshots: readonly Snapshot[]) {
    const clusters = Math.ceil(file.fileBytes / geometry.clusterBytes);
    if (clusters > CLUSTERS_MAX)
      throw new ImageError('unsupported', `${path} is too long for its refcounts to be rebuilt`);
    this.counts = new Uint32Array(clusters);
    this.#copied = new Uint8Array(clusters);
    this.#path = path;
    this.#file = file;
    this.#geometry = geometry;
    this.#use(0, geometry.clusterBytes);
    this.#useTable(header.l1OffsetBytes, header.l1Entries, true);
    for (const { l1OffsetBytes, l1Entries } of snapshots) this.#useTable(Number(l1OffsetBytes), l1Entries, false);
  }

  /** What is no part of the disk or its snapshots: the snapshot table, bitmaps. */
  useRange(offsetBytes: number, length: number): void {
    this.#use(offsetBytes, length);
  }

  /** Whether an entry says that a cluster is used once which is not: to write to it in its place would change another. */
  get hasFalseCopied(): boolean {
    return this.#copied.some((flag, cluster) => flag === 1 && (this.counts[cluster] ?? 0) > 1);
  }

  useRefcounts(refcounts: Refcounts, { refcountTableOffsetBytes, refcountTableClusters }: Header): void {
    this.#use(refcountTableOffsetBytes, refcountTableClusters * this.#geometry.clusterBytes);
    for (let block = 0; block < refcounts.tableEntries; block += 1) {
      const offsetBytes = refcounts.tableEntry(block);
      if (offsetBytes > 0) this.#use(offsetBytes, this.#geometry.clusterBytes);
    }
  }

  #useTable(l1OffsetBytes: number, l1Entries: number, isActive: boolean): void {
    this.#use(l1OffsetBytes, l1Entries * ENTRY_BYTES);
    const l1 = viewOf(readAt(this.#path, this.#file.fd, l1OffsetBytes, l1Entries * ENTRY_BYTES));
    for (let entry = 0; entry < l1Entries; entry += 1) {
      const high = l1.getInt32(entry * ENTRY_BYTES);
      const offsetBytes = hostOffset(high, l1.getInt32(entry * ENTRY_BYTES + 4));
      if (offsetBytes === 0) continue;
      this.#useL2(offsetBytes, isActive);
      if (isActive && isCopied(high)) this.#copied[offsetBytes / this.#geometry.clusterBytes] = 1;
    }
  }

  #useL2(offsetBytes: number, isActive: boolean): void {
    const { clusterBytes, clusterBits, l2EntryBytes, l2Entries, hasDataFile } = this.#geometry;
    this.#use(offsetBytes, clusterBytes);
    if (hasDataFile) return;
    const l2 = viewOf(readAt(this.#path, this.#file.fd, offsetBytes, clusterBytes));
    for (let entry = 0; entry < l2Entries; entry += 1) {
      const high = l2.getInt32(entry * l2EntryBytes);
      const low = l2.getInt32(entry * l2EntryBytes + 4);
      if (isCompressed(high)) {
        if (!compressedPlace(high, low, clusterBits, this.#place)) throw this.#damaged();
        this.#use(this.#place.offsetBytes, this.#place.lengthBytes);
      } else {
        const host = hostOffset(high, low);
        if (host === 0) continue;
        this.#use(host, clusterBytes);
        if (isActive && isCopied(high)) this.#copied[host / clusterBytes] = 1;
      }
    }
  }

  #use(offsetBytes: number, length: number): void {
    const { clusterBytes } = this.#geometry;
    const first = Math.floor(offsetBytes / clusterBytes);
    const end = Math.ceil((offsetBytes + length) / clusterBytes);
    if (offsetBytes < 0 || first >= this.counts.length || end > this.counts.length + 1) throw this.#damaged();
    for (let cluster = first; cluster < Math.min(end, this.counts.length); cluster += 1) {
      const count = (this.counts[cluster] ?? 0) + 1;
      if (count >= HIGH) throw this.#damaged();
      this.counts[cluster] = count;
    }
  }

  #damaged(): ImageError {
    const why = `was not closed by its last writer, and its tables point behind its end`;
    return new ImageError('damaged', `${this.#path} ${why}; repair it with: qemu-img check -r all ${this.#path}`);
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
