import type { Findings } from './check-findings.js';
import { type CheckedImage, readTable } from './checked-image.js';
import { type ClusterUses, KIND_DATA, KIND_L2 } from './cluster-uses.js';
import { compressedPlace, hostOffset, isCompressed, isCopied, ZERO } from './entries.js';
import type { Geometry } from './geometry.js';

const RESERVED_HIGH = 0x3f00_0000;
const RESERVED_LOW = 0x1fe;

/** Counts what L2 tables point to, and finds what they cannot say (qcow2.rst, 'L2 table entry'). */
export class L2Census {
  /** Of the disk as it is now, not of its snapshots. */
  allocatedClusters = 0;
  compressedClusters = 0;
  /** Those that do not lie behind the one before, and compressed ones. */
  fragmentedClusters = 0;
  readonly #image: CheckedImage;
  readonly #geometry: Geometry;
  readonly #uses: ClusterUses;
  readonly #findings: Findings;
  readonly #table: Uint8Array;
  readonly #view: DataView;
  readonly #place = { offsetBytes: 0, lengthBytes: 0 };
  #isActive = false;
  /** Where the next data cluster would lie. */
  #nextBytes = 0;

  constructor(image: CheckedImage, geometry: Geometry, uses: ClusterUses, findings: Findings) {
    this.#image = image;
    this.#geometry = geometry;
    this.#uses = uses;
    this.#findings = findings;
    this.#table = new Uint8Array(geometry.clusterBytes);
    this.#view = new DataView(this.#table.buffer);
  }

  /** A table at `offsetBytes`, −1 where no file reaches; `isActive`: of the disk, not of a snapshot. */
  count(offsetBytes: number, isActive: boolean): void {
    const { clusterBytes, l2Entries, l2EntryBytes, extendedL2 } = this.#geometry;
    const isThere = this.#uses.add(offsetBytes, clusterBytes, KIND_L2);
    if (offsetBytes % clusterBytes !== 0)
      this.#findings.corruption(`an L2 table does not begin at a cluster (${offsetBytes})`);
    if (!isThere) return;
    this.#isActive = isActive;
    this.#nextBytes = 0;
    readTable(this.#image, offsetBytes, this.#table);
    for (let at = 0; at < l2Entries * l2EntryBytes; at += l2EntryBytes) {
      const high = this.#view.getInt32(at);
      const low = this.#view.getInt32(at + 4);
      const zero = extendedL2 ? this.#view.getInt32(at + 8) : 0;
      const allocated = extendedL2 ? this.#view.getInt32(at + 12) : 0;
      if (high === 0 && low === 0 && allocated === 0) continue;
      if (isCompressed(high)) this.#compressed(high, low, zero | allocated);
      else this.#standard(high, low, zero, allocated);
    }
  }

  #compressed(high: number, low: number, subclusters: number): void {
    const { hasDataFile, clusterBits } = this.#geometry;
    // Text is made of what is wrong alone: there are millions of entries.
    const wrong = (what: string) =>
      this.#findings.corruption(`the compressed cluster of entry ${entryInHex(high, low)} ${what}`);
    if (isCopied(high)) wrong('is marked as one that can be written in place');
    if (hasDataFile) wrong('cannot be in an image with a data file');
    else if (subclusters !== 0) wrong('has subclusters');
    else {
      const isPlace = compressedPlace(high, low, clusterBits, this.#place);
      this.#uses.add(isPlace ? this.#place.offsetBytes : -1, this.#place.lengthBytes, KIND_DATA);
      if (!this.#isActive) return;
      this.allocatedClusters += 1;
      this.compressedClusters += 1;
      this.fragmentedClusters += 1;
    }
  }

  #standard(high: number, low: number, zero: number, allocated: number): void {
    const { hasDataFile, clusterBytes, extendedL2 } = this.#geometry;
    const wrong = (what: string) => this.#findings.corruption(`L2 entry ${entryInHex(high, low)} ${what}`);
    if ((high & RESERVED_HIGH) !== 0 || (low & RESERVED_LOW) !== 0) wrong('has reserved bits set');
    const offsetBytes = hostOffset(high, low);
    if (offsetBytes === 0 && !(hasDataFile && isCopied(high) && (extendedL2 || (low & ZERO) === 0))) {
      if (allocated !== 0) wrong('has subclusters, and no cluster');
      return;
    }
    if ((zero & allocated) !== 0) wrong('has subclusters that are data and zeroes');
    if (offsetBytes % clusterBytes !== 0) wrong('points to what is no beginning of a cluster');
    if (this.#isActive) {
      this.allocatedClusters += 1;
      if (this.#nextBytes !== 0 && offsetBytes !== this.#nextBytes) this.fragmentedClusters += 1;
      this.#nextBytes = offsetBytes + clusterBytes;
    }
    if (!hasDataFile) this.#uses.add(offsetBytes, clusterBytes, KIND_DATA);
  }
}

export function entryInHex(high: number, low: number): string {
  return `0x${((BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)).toString(16)}`;
}
