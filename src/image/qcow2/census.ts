import { ImageError } from '../errors.js';
import { type Bitmap, bitmapsOf } from './bitmaps.js';
import type { Findings } from './check-findings.js';
import { type CheckedImage, type OnProgress, readTable } from './checked-image.js';
import { ClusterUses, KIND_FIXED, KIND_L1, KIND_REFCOUNTS } from './cluster-uses.js';
import { hostOffset } from './entries.js';
import { type Geometry, geometryOf } from './geometry.js';
import { L1_BYTES_MAX } from './header.js';
import { L2Census } from './l2-census.js';
import { snapshotsOf } from './snapshots.js';

const ENTRY_BYTES = 8;
const PIECE_ENTRIES = 8_192;
const L1_RESERVED_HIGH = 0x7f00_0000;
const BITMAP_RESERVED_HIGH = 0xff00_0000;
const RESERVED_LOW = 0x1ff;
/** A bitmap's cluster may be said to be all ones. */
const BITMAP_RESERVED_LOW = 0x1fe;

/** Counts how often each cluster of a file is used, by all that an image's tables say, and finds what they cannot say. */
export class Census {
  readonly geometry: Geometry;
  readonly uses: ClusterUses;
  readonly l2: L2Census;
  /** Where the block with each number begins, 0 where there is none, −1 where it can be nowhere. */
  readonly blocks: Float64Array;
  /** All tables but the refcounts' could be read, and say what they can: what is not used is not merely not found. */
  readonly isSound: boolean;
  /** The refcounts lie where they cannot, or share their place: they have to be written anew, elsewhere. */
  needsRebuild = false;
  readonly #image: CheckedImage;
  readonly #findings: Findings;
  /** Of each block: 1 where it is among `uses`. */
  readonly #countedBlocks: Uint8Array;
  #isTableCounted = false;

  /** @throws ImageError where it cannot be read */
  constructor(image: CheckedImage, findings: Findings, onProgress: OnProgress) {
    const { path, file, header } = image;
    this.#image = image;
    this.#findings = findings;
    this.geometry = geometryOf(header);
    const { clusterBytes } = this.geometry;
    this.uses = new ClusterUses(image, this.geometry, findings);
    this.l2 = new L2Census(image, this.geometry, this.uses, findings);
    this.uses.add(0, clusterBytes, KIND_FIXED);
    const { snapshots, tableBytes } = snapshotsOf(path, file, header);
    const entries = snapshots.reduce((sum, { l1Entries }) => sum + l1Entries, header.l1Entries);
    let done = 0;
    const countL1 = (offsetBytes: number, count: number, isActive: boolean) =>
      this.#countL1(offsetBytes, count, isActive, () => onProgress(++done, entries));
    countL1(header.l1OffsetBytes, header.l1Entries, true);
    for (const { id, l1OffsetBytes, l1Entries } of snapshots) {
      if (l1Entries * ENTRY_BYTES > L1_BYTES_MAX)
        findings.corruption(`the L1 table of snapshot ${id} is too large (${l1Entries} entries)`);
      else if (l1OffsetBytes % BigInt(clusterBytes) === 0n) countL1(Number(l1OffsetBytes), l1Entries, false);
      else findings.corruption(`the L1 table of snapshot ${id} does not begin at a cluster (${l1OffsetBytes})`);
    }
    if (snapshots.length > 0) this.uses.add(header.snapshotsOffsetBytes, tableBytes, KIND_FIXED);
    this.#countBitmaps(bitmapsOf(path, file.fd, header));
    this.isSound = findings.corruptions === 0;
    this.blocks = new Float64Array((header.refcountTableClusters * clusterBytes) / ENTRY_BYTES);
    this.#countedBlocks = new Uint8Array(this.blocks.length);
    this.#countRefcounts();
  }

  /** From here on the clusters of the refcounts themselves are free. */
  forgetRefcounts(): void {
    const { refcountTableOffsetBytes, refcountTableClusters } = this.#image.header;
    const { clusterBytes } = this.geometry;
    if (this.#isTableCounted) this.uses.removeRefcounts(refcountTableOffsetBytes, refcountTableClusters * clusterBytes);
    for (const [block, offsetBytes] of this.blocks.entries()) {
      if (this.#countedBlocks[block] === 1) this.uses.removeRefcounts(offsetBytes, clusterBytes);
    }
  }

  #countL1(l1OffsetBytes: number, l1Entries: number, isActive: boolean, onEntry: () => void): void {
    if (!this.uses.add(l1OffsetBytes, l1Entries * ENTRY_BYTES, KIND_L1)) return;
    let tables = 0;
    this.#eachEntry(l1OffsetBytes, l1Entries, (high, low, index) => {
      onEntry();
      if (high === 0 && low === 0) return;
      // Each is read: a small file that names one of them a million times would be read for days.
      tables += 1;
      if (tables > this.uses.counts.length)
        throw this.#damaged('an L1 table names more L2 tables than the file can hold');
      if ((high & L1_RESERVED_HIGH) !== 0 || (low & RESERVED_LOW) !== 0)
        this.#findings.corruption(`L1 entry ${index} has reserved bits set`);
      this.l2.count(hostOffset(high, low), isActive);
    });
  }

  #countBitmaps(bitmaps: readonly Bitmap[]): void {
    const { bitmaps: place } = this.#image.header;
    if (place === undefined || bitmaps.length === 0) return;
    const { clusterBytes } = this.geometry;
    this.uses.add(Number(place.directoryOffsetBytes), Number(place.directoryBytes), KIND_FIXED);
    for (const { name, tableOffsetBytes, tableEntries } of bitmaps) {
      const table = Number(tableOffsetBytes);
      if (!this.uses.add(table, tableEntries * ENTRY_BYTES, KIND_FIXED)) continue;
      this.#eachEntry(table, tableEntries, (high, low, index) => {
        const offsetBytes = hostOffset(high, low);
        const isOdd = (high & BITMAP_RESERVED_HIGH) !== 0 || (low & BITMAP_RESERVED_LOW) !== 0;
        if (isOdd || offsetBytes % clusterBytes !== 0)
          this.#findings.corruption(`entry ${index} of the bitmap ${name} makes no sense`);
        else if (offsetBytes > 0) this.uses.add(offsetBytes, clusterBytes, KIND_FIXED);
      });
    }
  }

  #countRefcounts(): void {
    const { header, file } = this.#image;
    const { clusterBytes } = this.geometry;
    const { refcountTableOffsetBytes: tableAt } = header;
    const broken = (text: string) => {
      this.#findings.corruption(text);
      this.needsRebuild = true;
    };
    this.#isTableCounted = this.uses.add(tableAt, this.blocks.length * ENTRY_BYTES, KIND_REFCOUNTS);
    if (!this.#isTableCounted) this.needsRebuild = true;
    this.#eachEntry(tableAt, this.blocks.length, (high, low, block) => {
      const offsetBytes = (high >>> 0) * 2 ** 32 + ((low & ~RESERVED_LOW) >>> 0);
      const isAligned = offsetBytes % clusterBytes === 0 && offsetBytes <= Number.MAX_SAFE_INTEGER;
      this.blocks[block] = isAligned ? offsetBytes : -1;
      if ((low & RESERVED_LOW) !== 0) broken(`refcount table entry ${block} has reserved bits set`);
      else if (!isAligned) broken(`refcount block ${block} does not begin at a cluster (${offsetBytes})`);
      else if (offsetBytes >= file.fileBytes) broken(`refcount block ${block} lies behind the end (${offsetBytes})`);
      else if (offsetBytes > 0) {
        // Not by the count behind it: a narrow refcount does not tell two uses from one.
        const isShared = this.uses.counts.get(offsetBytes / clusterBytes) !== 0;
        this.#countedBlocks[block] = this.uses.add(offsetBytes, clusterBytes, KIND_REFCOUNTS) ? 1 : 0;
        if (isShared) broken(`refcount block ${block} lies where something else does (${offsetBytes})`);
      }
    });
  }

  #damaged(what: string): ImageError {
    return new ImageError('damaged', `${this.#image.path} is a damaged qcow2 image: ${what}`);
  }

  #eachEntry(offsetBytes: number, entries: number, act: (high: number, low: number, index: number) => void): void {
    const piece = new Uint8Array(Math.min(entries, PIECE_ENTRIES) * ENTRY_BYTES);
    const view = new DataView(piece.buffer);
    for (let from = 0; from < entries; from += PIECE_ENTRIES) {
      const count = Math.min(PIECE_ENTRIES, entries - from);
      readTable(this.#image, offsetBytes + from * ENTRY_BYTES, piece.subarray(0, count * ENTRY_BYTES));
      for (let index = 0; index < count; index += 1) {
        act(view.getInt32(index * ENTRY_BYTES), view.getInt32(index * ENTRY_BYTES + 4), from + index);
      }
    }
  }
}
