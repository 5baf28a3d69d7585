import { constants } from 'node:os';
import type { FileCalls } from '../file-calls.js';
import { readZeroed, writeAll } from '../whole-calls.js';
import { compressedPlace, hostOffset, isCompressed, isCopied, ZERO } from './entries.js';
import type { Geometry } from './geometry.js';
import type { L2Tables } from './l2-tables.js';
import type { WriteOrder } from './write-order.js';

const { EFBIG, EIO } = constants.errno;

/** The bits of all subclusters of a cluster. */
export const ALL_UNITS = 0xffff_ffff | 0;
/** Ranges that a cluster can drop: a compressed one ends in its neighbour. */
const DROPS_A_CLUSTER = 2;

/** What the disk reads as, below the entries that are about to change. */
export interface OldContent {
  /** Answers 0 or a positive errno. */
  read(offsetBytes: number, length: number, target: Uint8Array, at: number): number;
  /** Whether a range, within one slice, is known to be zeroes. */
  isZero(offsetBytes: number, length: number): boolean;
  /** Whether the image, and not only what is behind it, decides what an unallocated range reads as. */
  hasBacking(offsetBytes: number): boolean;
}

/** An entry of an L2 table, decoded. */
export interface Entry {
  high: number;
  low: number;
  /** Bits of the units that are allocated, and that are zeroes. */
  allocated: number;
  zero: number;
  hasHost: boolean;
  isInPlace: boolean;
}

/** What every change of a cluster's entry needs: the lock, a table of the image's own, the entry decoded, the old cluster dropped. */
export class ClusterChange {
  /** What `decode` found. */
  readonly entry: Entry = { high: 0, low: 0, allocated: 0, zero: 0, hasHost: false, isInPlace: false };
  readonly tables: L2Tables;
  readonly #geometry: Geometry;
  readonly #order: WriteOrder;
  readonly #fd: number;
  readonly #calls: FileCalls;
  readonly #place = { offsetBytes: 0, lengthBytes: 0 };

  /** `fd` and `calls`: where the tables are. */
  constructor(
    geometry: Geometry,
    tables: L2Tables,
    order: WriteOrder,
    file: { readonly fd: number; readonly calls: FileCalls },
  ) {
    this.#geometry = geometry;
    this.tables = tables;
    this.#order = order;
    this.#fd = file.fd;
    this.#calls = file.calls;
  }

  locked(act: () => number): number {
    return this.tables.hold(() => {
      const errno = this.#order.prepare();
      return errno === 0 ? act() : errno;
    });
  }

  /** The slot of a slice whose table is this image's alone: made, or copied, where it is not. Answers −errno otherwise. */
  ownSlot(slice: number): number {
    const { tables } = this;
    if (!tables.isAbsent(slice) && tables.isCopied(slice)) return tables.slotOf(slice);
    const { clusterBytes } = this.#geometry;
    const { allocator } = this.#order;
    const oldOffset = tables.offsetOf(slice);
    if (oldOffset < 0) return -EIO;
    if (!allocator.areas.hasRoom(1)) return -EFBIG;
    const roomErrno = this.makeRoom(1);
    if (roomErrno !== 0) return -roomErrno;
    let errno = allocator.allocate(1);
    if (errno !== 0) return -errno;
    const { first, isFresh } = allocator;
    errno = this.#order.checkUntaken(first * clusterBytes, clusterBytes);
    if (errno === 0) errno = this.#writeTable(first, oldOffset, isFresh);
    if (errno !== 0) {
      allocator.cancel(first, 1);
      return -errno;
    }
    this.#order.willPoint();
    allocator.takeAsTable(first);
    tables.setTable(slice, first * clusterBytes);
    if (oldOffset > 0) this.#order.dropped.drop(oldOffset / clusterBytes, 1);
    return tables.slotOf(slice);
  }

  #writeTable(cluster: number, oldOffset: number, isFresh: boolean): number {
    const { clusterBytes } = this.#geometry;
    if (oldOffset === 0 && isFresh) return 0;
    const table = new Uint8Array(clusterBytes);
    const errno = oldOffset === 0 ? 0 : readZeroed(this.#calls, this.#fd, oldOffset, clusterBytes, table, 0);
    return errno === 0 ? writeAll(this.#calls, this.#fd, cluster * clusterBytes, clusterBytes, table, 0) : errno;
  }

  /** What is dropped must find room; where workers still use what waits there, some of it is lost until a check. */
  makeRoom(clusters: number): number {
    return this.#wantsRoom(clusters) ? this.#order.flushLocked() : 0;
  }

  /** Without the lock, in which a sync would have everybody wait: the same, unless others take the room meanwhile. */
  makeRoomAhead(clusters: number): number {
    return this.#wantsRoom(clusters) ? this.#order.flush() : 0;
  }

  #wantsRoom(clusters: number): boolean {
    const { dropped } = this.#order;
    return !dropped.hasRoom(clusters * DROPS_A_CLUSTER) && !dropped.areHeldUp;
  }

  decode(slot: number, index: number): void {
    const { extendedL2, hasDataFile } = this.#geometry;
    const entry = this.entry;
    entry.high = this.tables.word(slot, index, 0);
    entry.low = this.tables.word(slot, index, 1);
    const isPacked = isCompressed(entry.high);
    entry.hasHost = !isPacked && (hostOffset(entry.high, entry.low) !== 0 || (hasDataFile && isCopied(entry.high)));
    entry.isInPlace = entry.hasHost && isCopied(entry.high);
    if (extendedL2) {
      entry.zero = isPacked ? 0 : this.tables.word(slot, index, 2);
      entry.allocated = isPacked ? 0 : this.tables.word(slot, index, 3);
      return;
    }
    const isZero = !isPacked && (entry.low & ZERO) !== 0;
    entry.zero = isZero ? 1 : 0;
    entry.allocated = entry.hasHost && !isZero ? 1 : 0;
  }

  /** Bits of the units between two offsets, as far as they lie in the cluster. */
  units(from: number, to: number): number {
    const { unitBytes, unitsPerCluster } = this.#geometry;
    const first = Math.max(0, Math.floor(from / unitBytes));
    const end = Math.min(unitsPerCluster, Math.ceil(to / unitBytes));
    return ((end === 32 ? ALL_UNITS : (1 << end) - 1) & ~((1 << first) - 1)) | 0;
  }

  /**
   * Before it is dropped, and before clusters are allocated: what the entry points to is counted. Else it would be somebody
   * else's soon, who would lose it. Answers 0, or a positive errno.
   */
  checkOld(): number {
    return this.#eachOld((cluster) => {
      const refcount = this.#order.refcounts.get(cluster);
      return refcount === 0 ? this.#order.markCorrupt() : Math.max(0, -refcount);
    });
  }

  dropOld(): void {
    this.#eachOld((cluster) => {
      this.#order.dropped.drop(cluster, 1);
      return 0;
    });
  }

  /** Each cluster of the image's own file that the entry points to, until one is answered with an errno. */
  #eachOld(act: (cluster: number) => number): number {
    const { high, low, hasHost } = this.entry;
    const { clusterBytes, clusterBits, hasDataFile } = this.#geometry;
    if (hasDataFile) return 0;
    const host = hostOffset(high, low);
    if (hasHost) return host > 0 && host % clusterBytes === 0 ? act(host / clusterBytes) : 0;
    if (!isCompressed(high) || !compressedPlace(high, low, clusterBits, this.#place)) return 0;
    const first = Math.floor(this.#place.offsetBytes / clusterBytes);
    const end = Math.ceil((this.#place.offsetBytes + this.#place.lengthBytes) / clusterBytes);
    for (let cluster = first; cluster < end; cluster += 1) {
      const errno = act(cluster);
      if (errno !== 0) return errno;
    }
    return 0;
  }

  put(slot: number, index: number, high: number, low: number, allocated: number, zero: number): void {
    this.tables.setEntry(slot, index, high, low, allocated, zero);
  }
}
