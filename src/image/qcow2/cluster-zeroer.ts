import { invariant } from '../../base/invariant.js';
import { PUNCH_HOLE } from '../../kernel/fd-calls.js';
import type { FileCalls } from '../file-calls.js';
import { isPunched } from '../punched.js';
import { writeAll } from '../whole-calls.js';
import { ALL_UNITS, type ClusterChange, type OldContent } from './cluster-change.js';
import { isCompressed, ZERO } from './entries.js';
import type { Geometry } from './geometry.js';
import type { WriteOrder } from './write-order.js';

const ZERO_PIECE_BYTES = 1 << 20;

/** Makes whole clusters read as zeroes, as QEMU does: by a flag in version 3, by having none in version 2. */
export class ClusterZeroer {
  readonly #geometry: Geometry;
  readonly #order: WriteOrder;
  readonly #change: ClusterChange;
  readonly #fd: number;
  readonly #calls: FileCalls;
  readonly #old: OldContent;

  /** `fd` and `calls`: where the data are. */
  constructor(
    geometry: Geometry,
    order: WriteOrder,
    change: ClusterChange,
    data: { readonly fd: number; readonly calls: FileCalls },
    old: OldContent,
  ) {
    this.#geometry = geometry;
    this.#order = order;
    this.#change = change;
    this.#fd = data.fd;
    this.#calls = data.calls;
    this.#old = old;
  }

  /**
   * Makes whole clusters read as zeroes, and whole subclusters of those at both ends, which then may not be compressed;
   * `mayDrop`: they need no storage. Answers 0 or a positive errno.
   */
  zero(offsetBytes: number, length: number, mayDrop: boolean): number {
    return this.#eachSlice(offsetBytes, length, (slice, from, to) => this.#zeroSlice(slice, from, to, mayDrop, false));
  }

  /** Gives the storage of whole clusters back; they read as zeroes then. */
  discard(offsetBytes: number, length: number): number {
    return this.#eachSlice(offsetBytes, length, (slice, from, to) => this.#zeroSlice(slice, from, to, true, true));
  }

  #eachSlice(offsetBytes: number, length: number, act: (slice: number, from: number, to: number) => number): number {
    const { clusterBytes, sliceEntries, sizeBytes } = this.#geometry;
    const sliceSpanBytes = sliceEntries * clusterBytes;
    // The last cluster is a whole one, wherever the disk ends in it.
    const isToEnd = offsetBytes + length === sizeBytes;
    const end = isToEnd ? Math.ceil(sizeBytes / clusterBytes) * clusterBytes : offsetBytes + length;
    for (let from = offsetBytes; from < end; ) {
      const slice = Math.floor(from / sliceSpanBytes);
      const to = Math.min(end, (slice + 1) * sliceSpanBytes);
      let errno = this.#change.makeRoomAhead(Math.ceil((to - from) / clusterBytes) + 1);
      if (errno === 0) errno = this.#change.locked(() => act(slice, from, to));
      if (errno !== 0) return errno;
      from = to;
    }
    return 0;
  }

  #zeroSlice(slice: number, from: number, to: number, mayDrop: boolean, isDiscard: boolean): number {
    const { clusterBytes, sliceEntries, hasDataFile } = this.#geometry;
    if (this.#change.tables.isAbsent(slice) && !this.#old.hasBacking(from)) return 0;
    const slot = this.#change.ownSlot(slice);
    if (slot < 0) return -slot;
    const first = Math.floor(from / clusterBytes);
    const end = Math.ceil(to / clusterBytes);
    const errno = this.#change.makeRoom(end - first);
    if (errno !== 0) return errno;
    for (let cluster = first; cluster < end; cluster += 1) {
      const begin = cluster * clusterBytes;
      const index = cluster - slice * sliceEntries;
      const isWhole = from <= begin && to >= begin + clusterBytes;
      const failed = isWhole ? this.#zeroCluster(slot, index, begin, mayDrop, isDiscard) : 0;
      if (failed !== 0) return failed;
      if (!isWhole) this.#zeroUnits(slot, index, Math.max(from, begin), this.#change.units(from - begin, to - begin));
    }
    return hasDataFile ? this.#zeroData(from, to - from, mayDrop) : 0;
  }

  #zeroCluster(slot: number, index: number, offsetBytes: number, mayDrop: boolean, isDiscard: boolean): number {
    const { version, extendedL2 } = this.#geometry;
    this.#change.decode(slot, index);
    const entry = this.#change.entry;
    const isUnallocated = !entry.hasHost && !isCompressed(entry.high) && entry.allocated === 0;
    const isZero = entry.allocated === 0 && (entry.zero === ALL_UNITS || (!extendedL2 && entry.zero === 1));
    if (isUnallocated && (isZero || (entry.zero === 0 && !this.#old.hasBacking(offsetBytes)))) return 0;
    const keepsHost = entry.isInPlace && !mayDrop && version >= 3;
    if (keepsHost && isZero) return 0;
    const errno = keepsHost ? 0 : this.#change.checkOld();
    if (errno !== 0) return errno;
    this.#order.willChange();
    if (keepsHost) {
      this.#change.put(slot, index, entry.high, extendedL2 ? entry.low : entry.low | ZERO, 0, ALL_UNITS);
      return 0;
    }
    invariant(
      version >= 3 || isDiscard || !this.#old.hasBacking(offsetBytes),
      'version 2 has no zeroes on a backing file',
    );
    this.#change.dropOld();
    this.#change.put(slot, index, 0, version >= 3 && !extendedL2 ? ZERO : 0, 0, ALL_UNITS);
    return 0;
  }

  /** Subclusters of one cluster, which keeps its storage: only their bits change, as for QEMU, whoever else has the cluster. */
  #zeroUnits(slot: number, index: number, offsetBytes: number, units: number): void {
    this.#change.decode(slot, index);
    const { high, low, allocated, zero } = this.#change.entry;
    invariant(!isCompressed(high), 'a compressed cluster has no subclusters');
    const isEmpty = (allocated & units) === 0;
    if (isEmpty && ((zero & units) === units || !this.#old.hasBacking(offsetBytes))) return;
    this.#order.willChange();
    this.#change.put(slot, index, high, low, allocated & ~units, zero | units);
  }

  /** In a data file a raw reader is to see the zeroes too; in one that only we read its storage is given back. */
  #zeroData(offsetBytes: number, length: number, mayDrop: boolean): number {
    const { rawDataFile, sizeBytes } = this.#geometry;
    const bytes = Math.min(length, sizeBytes - offsetBytes);
    const isDropped = mayDrop && this.#calls.fallocate(this.#fd, PUNCH_HOLE, offsetBytes, bytes) === 0;
    if (!rawDataFile || (isDropped && isPunched(this.#calls, this.#fd, offsetBytes, bytes))) return 0;
    const piece = new Uint8Array(Math.min(ZERO_PIECE_BYTES, bytes));
    for (let done = 0; done < bytes; done += piece.length) {
      const pieceBytes = Math.min(piece.length, bytes - done);
      const failed = writeAll(this.#calls, this.#fd, offsetBytes + done, pieceBytes, piece, 0);
      if (failed !== 0) return failed;
    }
    return 0;
  }
}
