import { constants } from 'node:os';
import { invariant } from '../../base/invariant.js';
import { PUNCH_HOLE } from '../../kernel/fd-calls.js';
import type { FileCalls } from '../file-calls.js';
import { writeAll } from '../whole-calls.js';
import { ALL_UNITS, type ClusterChange, type OldContent } from './cluster-change.js';
import { isCompressed, ZERO } from './entries.js';
import type { Geometry } from './geometry.js';
import type { WriteOrder } from './write-order.js';

const { EOPNOTSUPP } = constants.errno;
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

  /** Makes whole clusters read as zeroes; `mayDrop`: they need no storage. Answers 0 or a positive errno. */
  zero(offsetBytes: number, length: number, mayDrop: boolean): number {
    return this.#eachSlice(offsetBytes, length, (slice, first, count) =>
      this.#zeroSlice(slice, first, count, mayDrop, false),
    );
  }

  /** Gives the storage of whole clusters back; they read as zeroes then. */
  discard(offsetBytes: number, length: number): number {
    return this.#eachSlice(offsetBytes, length, (slice, first, count) =>
      this.#zeroSlice(slice, first, count, true, true),
    );
  }

  #eachSlice(
    offsetBytes: number,
    length: number,
    act: (slice: number, first: number, count: number) => number,
  ): number {
    const { clusterBytes, sliceEntries } = this.#geometry;
    const end = Math.ceil((offsetBytes + length) / clusterBytes);
    for (let cluster = offsetBytes / clusterBytes; cluster < end; ) {
      const slice = Math.floor(cluster / sliceEntries);
      const first = cluster - slice * sliceEntries;
      const count = Math.min(end - cluster, sliceEntries - first);
      const errno = this.#change.locked(() => act(slice, first, count));
      if (errno !== 0) return errno;
      cluster += count;
    }
    return 0;
  }

  #zeroSlice(slice: number, first: number, count: number, mayDrop: boolean, isDiscard: boolean): number {
    const { clusterBytes, sliceEntries } = this.#geometry;
    const begin = (slice * sliceEntries + first) * clusterBytes;
    if (this.#change.tables.isAbsent(slice) && !this.#old.hasBacking(begin)) return 0;
    const slot = this.#change.ownSlot(slice);
    if (slot < 0) return -slot;
    const errno = this.#change.makeRoom(count);
    if (errno !== 0) return errno;
    for (let index = first; index < first + count; index += 1) {
      this.#zeroCluster(slot, index, begin + (index - first) * clusterBytes, mayDrop, isDiscard);
    }
    return this.#geometry.hasDataFile ? this.#zeroData(begin, count * clusterBytes, mayDrop) : 0;
  }

  #zeroCluster(slot: number, index: number, offsetBytes: number, mayDrop: boolean, isDiscard: boolean): void {
    const { version, extendedL2 } = this.#geometry;
    this.#change.decode(slot, index);
    const entry = this.#change.entry;
    const isUnallocated = !entry.hasHost && !isCompressed(entry.high) && entry.allocated === 0;
    const isZero = entry.allocated === 0 && (entry.zero === ALL_UNITS || (!extendedL2 && entry.zero === 1));
    if (isUnallocated && (isZero || (entry.zero === 0 && !this.#old.hasBacking(offsetBytes)))) return;
    const keepsHost = entry.isInPlace && !mayDrop && version >= 3;
    if (keepsHost && isZero) return;
    this.#order.willChange();
    if (keepsHost) {
      this.#change.put(slot, index, entry.high, extendedL2 ? entry.low : entry.low | ZERO, 0, ALL_UNITS);
      return;
    }
    invariant(
      version >= 3 || isDiscard || !this.#old.hasBacking(offsetBytes),
      'version 2 has no zeroes on a backing file',
    );
    this.#change.dropOld();
    this.#change.put(slot, index, 0, version >= 3 && !extendedL2 ? ZERO : 0, 0, ALL_UNITS);
  }

  /** In a data file a raw reader is to see the zeroes too; in one that only we read its storage is given back. */
  #zeroData(offsetBytes: number, length: number, mayDrop: boolean): number {
    const { rawDataFile, sizeBytes } = this.#geometry;
    const bytes = Math.min(length, sizeBytes - offsetBytes);
    const errno = mayDrop ? 0 - this.#calls.fallocate(this.#fd, PUNCH_HOLE, offsetBytes, bytes) : EOPNOTSUPP;
    if (!rawDataFile || errno === 0) return 0;
    const piece = new Uint8Array(Math.min(ZERO_PIECE_BYTES, bytes));
    for (let done = 0; done < bytes; done += piece.length) {
      const pieceBytes = Math.min(piece.length, bytes - done);
      const failed = writeAll(this.#calls, this.#fd, offsetBytes + done, pieceBytes, piece, 0);
      if (failed !== 0) return failed;
    }
    return 0;
  }
}
