import { constants } from 'node:os';
import { COMPRESSED, DATA, INVALID, UNALLOCATED, ZEROES, ZEROES_ALLOCATED } from './cluster-kind.js';
import { hostOffset, isCompressed, isCopied, swapped, ZERO } from './entries.js';
import { type Geometry, wholesIn } from './geometry.js';
import type { L2Tables } from './l2-tables.js';
import type { SliceCache } from './slice-cache.js';
import { subclusterRun, type UnitRun } from './subclusters.js';

const { EIO } = constants.errno;

/** Guest offsets to host offsets, through L2 tables in memory that all workers share. */
export class ClusterMap {
  // What `find` found.
  kind = UNALLOCATED;
  /** Of DATA, and of ZEROES_ALLOCATED. */
  hostBytes = 0;
  lengthBytes = 0;
  /** Of DATA: they may be changed in their place. */
  isInPlace = false;
  /** The entry of a COMPRESSED cluster. */
  entryHigh = 0;
  entryLow = 0;

  readonly #geometry: Geometry;
  readonly #tables: L2Tables;
  readonly #cache: SliceCache;
  readonly clusterBytes: number;
  readonly #sliceEntries: number;
  readonly #unitRun: UnitRun = { kind: INVALID, units: 0 };

  constructor(geometry: Geometry, tables: L2Tables) {
    this.#geometry = geometry;
    this.#tables = tables;
    this.#cache = tables.cache;
    this.clusterBytes = geometry.clusterBytes;
    this.#sliceEntries = geometry.sliceEntries;
  }

  /**
   * Finds what begins at `offsetBytes` of the disk, and how far it goes on, at most `length`, as one piece of the file
   * where it has a place in one. Answers 0 or a positive errno; EIO for an entry that makes no sense.
   */
  find(offsetBytes: number, length: number): number {
    const cluster = Math.floor(offsetBytes / this.clusterBytes);
    const slice = Math.floor(cluster / this.#sliceEntries);
    if (this.#tables.isAbsent(slice)) {
      const { slicesPerTable } = this.#geometry;
      const tableEnd = (Math.floor(slice / slicesPerTable) + 1) * slicesPerTable;
      this.kind = UNALLOCATED;
      this.lengthBytes = Math.min(length, tableEnd * this.#sliceEntries * this.clusterBytes - offsetBytes);
      return 0;
    }
    const index = cluster - slice * this.#sliceEntries;
    const inCluster = offsetBytes - cluster * this.clusterBytes;
    const cache = this.#cache;
    for (;;) {
      const slot = cache.find(slice);
      const version = slot < 0 ? 1 : cache.version(slot);
      if ((version & 1) !== 0) {
        const errno = this.#tables.settle(slice);
        if (errno !== 0) return errno;
        continue;
      }
      const isOwnTable = this.#tables.isCopied(slice);
      this.#decode(slot * cache.wordsPerSlice, index, offsetBytes, inCluster, length);
      this.isInPlace &&= isOwnTable;
      if (cache.isStill(slot, slice, version)) return this.kind === INVALID ? EIO : 0;
    }
  }

  /** What can be zeroes by entries alone: clusters that lie in a range as a whole, and subclusters of those that have some. */
  wholeUnits(offsetBytes: number, length: number): readonly [number, number] {
    const { unitBytes, sizeBytes } = this.#geometry;
    const clusterBytes = this.clusterBytes;
    let [from, to] = wholesIn(this.#geometry, unitBytes, offsetBytes, length);
    // None becomes compressed while it is looked at: we compress nothing.
    if (from % clusterBytes !== 0 && !this.#hasUnits(from)) from += clusterBytes - (from % clusterBytes);
    if (to % clusterBytes !== 0 && to !== sizeBytes && !this.#hasUnits(to)) to -= to % clusterBytes;
    return from < to ? [from, to] : [offsetBytes, offsetBytes];
  }

  #hasUnits(offsetBytes: number): boolean {
    return this.find(offsetBytes, 1) === 0 && this.kind !== COMPRESSED;
  }

  #decode(at: number, index: number, offsetBytes: number, inCluster: number, length: number): void {
    if (this.#geometry.extendedL2) this.#decodeExtended(at, index, offsetBytes, inCluster, length);
    else this.#decodeStandard(at, index, offsetBytes, inCluster, length);
  }

  #decodeStandard(at: number, index: number, offsetBytes: number, inCluster: number, length: number): void {
    const clusterBytes = this.clusterBytes;
    const { words } = this.#cache;
    let high = swapped(Atomics.load(words, at + 2 * index));
    let low = swapped(Atomics.load(words, at + 2 * index + 1));
    const kind = this.#kindOf(high, low);
    const host = hostOffset(high, low);
    this.kind = this.#checked(kind, host, offsetBytes - inCluster);
    this.hostBytes = host + inCluster;
    this.entryHigh = high;
    this.entryLow = low;
    this.isInPlace = isCopied(high);
    let covered = clusterBytes - inCluster;
    if (kind !== COMPRESSED && this.kind !== INVALID) {
      for (let next = index + 1; covered < length && next < this.#sliceEntries; next += 1) {
        high = swapped(Atomics.load(words, at + 2 * next));
        low = swapped(Atomics.load(words, at + 2 * next + 1));
        if (this.#kindOf(high, low) !== kind) break;
        if (hasPlace(kind) && hostOffset(high, low) !== host + (next - index) * clusterBytes) break;
        if (isCopied(high) !== this.isInPlace) break;
        covered += clusterBytes;
      }
    }
    this.lengthBytes = Math.min(covered, length);
  }

  #decodeExtended(at: number, index: number, offsetBytes: number, inCluster: number, length: number): void {
    const { unitBytes } = this.#geometry;
    const first = Math.floor(inCluster / unitBytes);
    this.#readUnits(at, index, first, offsetBytes - inCluster);
    const { kind, hostBytes } = this;
    this.isInPlace = isCopied(this.entryHigh);
    this.hostBytes = hostBytes + inCluster;
    let covered = (first + this.#unitRun.units) * unitBytes - inCluster;
    for (let next = index + 1; kind !== COMPRESSED && kind !== INVALID; next += 1) {
      if (covered >= length || next === this.#sliceEntries) break;
      if (covered + inCluster !== (next - index) * this.clusterBytes) break;
      this.#readUnits(at, next, 0, offsetBytes - inCluster + (next - index) * this.clusterBytes);
      const isNext = this.kind === kind && (!hasPlace(kind) || this.hostBytes === hostBytes + covered + inCluster);
      this.kind = kind;
      if (!isNext || isCopied(this.entryHigh) !== this.isInPlace) break;
      covered += this.#unitRun.units * unitBytes;
    }
    this.hostBytes = hostBytes + inCluster;
    this.lengthBytes = Math.min(covered, length);
  }

  /** Sets `kind`, `hostBytes` (of the cluster) and the run of units from `first` on that are the same. */
  #readUnits(at: number, index: number, first: number, clusterOffsetBytes: number): void {
    const { words } = this.#cache;
    const word = (number: number) => swapped(Atomics.load(words, at + 4 * index + number));
    const high = word(0);
    const low = word(1);
    this.entryHigh = high;
    this.entryLow = low;
    const host = hostOffset(high, low);
    this.hostBytes = host;
    if (isCompressed(high)) {
      this.kind = this.#geometry.hasDataFile ? INVALID : COMPRESSED;
      this.#unitRun.units = this.#geometry.unitsPerCluster - first;
      return;
    }
    subclusterRun(word(3), word(2), first, this.#hasHost(high, host), this.#unitRun);
    this.kind = this.#checked(this.#unitRun.kind, host, clusterOffsetBytes);
  }

  #kindOf(high: number, low: number): number {
    if (isCompressed(high)) return this.#geometry.hasDataFile ? INVALID : COMPRESSED;
    const isAllocated = this.#hasHost(high, hostOffset(high, low));
    if ((low & ZERO) !== 0) {
      if (this.#geometry.version < 3) return INVALID;
      return isAllocated ? ZEROES_ALLOCATED : ZEROES;
    }
    return isAllocated ? DATA : UNALLOCATED;
  }

  /** In a data file the first cluster begins at 0. */
  #hasHost(high: number, host: number): boolean {
    return host !== 0 || (this.#geometry.hasDataFile && high < 0);
  }

  /** Data lie at whole clusters; in a data file where the disk has them. */
  #checked(kind: number, host: number, guestBytes: number): number {
    if (!hasPlace(kind)) return kind;
    if (host < 0 || host % this.clusterBytes !== 0) return INVALID;
    return this.#geometry.hasDataFile && host !== guestBytes ? INVALID : kind;
  }
}

function hasPlace(kind: number): boolean {
  return kind === DATA || kind === ZEROES_ALLOCATED;
}
