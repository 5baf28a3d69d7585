import { constants } from 'node:os';
import type { FileCalls } from '../file-calls.js';
import { writeAll } from '../whole-calls.js';
import type { ClusterChange, OldContent } from './cluster-change.js';
import { copiedHigh, hostOffset, isCompressed, offsetLow } from './entries.js';
import type { Geometry } from './geometry.js';
import type { WriteOrder } from './write-order.js';

const { EIO } = constants.errno;

const COPY_BYTES = 1 << 20;
/**
 * Writes what needs new clusters or subclusters: copy-on-write of what was there, the data, and then the entries. All of it
 * under the image's lock, within one slice of a table at a time.
 */
export class ClusterWriter {
  /** How much of its range the last `write` has done. */
  doneBytes = 0;
  readonly #geometry: Geometry;
  readonly #order: WriteOrder;
  readonly #change: ClusterChange;
  readonly #fd: number;
  readonly #calls: FileCalls;
  readonly #old: OldContent;
  #buffer = new Uint8Array(0);

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

  /** Writes the beginning of a range, `doneBytes` of it. Answers 0 or a positive errno. */
  write(offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    this.doneBytes = 0;
    return this.#change.locked(() => this.#write(offsetBytes, length, source, at));
  }

  relax(): void {
    this.#buffer = new Uint8Array(0);
  }

  #write(offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    const { clusterBytes, sliceEntries } = this.#geometry;
    const cluster = Math.floor(offsetBytes / clusterBytes);
    const slice = Math.floor(cluster / sliceEntries);
    const index = cluster - slice * sliceEntries;
    const slot = this.#change.ownSlot(slice);
    if (slot < 0) return -slot;
    const roomErrno = this.#change.makeRoom(sliceEntries);
    if (roomErrno !== 0) return roomErrno;
    this.#change.decode(slot, index);
    if (this.#change.entry.isInPlace) return this.#writeInto(slot, index, offsetBytes, length, source, at);
    const inCluster = offsetBytes - cluster * clusterBytes;
    const wanted = Math.min(sliceEntries - index, Math.ceil((inCluster + length) / clusterBytes));
    const count = this.#runOfNew(slot, index, wanted);
    if (count < 0) return -count;
    return this.#writeNew(slot, index, count, offsetBytes, length, source, at);
  }

  /** How many clusters from `index` on, at most `wanted`, need new storage. Answers −errno where their old one makes no sense. */
  #runOfNew(slot: number, index: number, wanted: number): number {
    for (let count = 0; count < wanted; count += 1) {
      this.#change.decode(slot, index + count);
      if (this.#change.entry.isInPlace) return count;
      const errno = this.#change.checkOld();
      if (errno !== 0) return -errno;
    }
    return wanted;
  }

  #writeNew(
    slot: number,
    index: number,
    wanted: number,
    offsetBytes: number,
    length: number,
    source: Uint8Array,
    at: number,
  ): number {
    const { clusterBytes, unitBytes, hasDataFile } = this.#geometry;
    const { allocator } = this.#order;
    const guest = Math.floor(offsetBytes / clusterBytes);
    if (!hasDataFile) {
      const errno = allocator.allocate(wanted);
      if (errno !== 0) return errno;
    }
    const first = hasDataFile ? guest : allocator.first;
    const count = hasDataFile ? wanted : allocator.count;
    const isFresh = !hasDataFile && allocator.isFresh;
    const guestEnd = (guest + count) * clusterBytes;
    const to = Math.min(offsetBytes + length, guestEnd);
    const shift = (first - guest) * clusterBytes;
    const head = this.#isCopiedWhole(slot, index) ? guest * clusterBytes : floorTo(offsetBytes, unitBytes);
    const lastIndex = index + count - 1;
    const tail = this.#isCopiedWhole(slot, lastIndex) ? guestEnd : Math.min(guestEnd, ceilTo(to, unitBytes));
    let errno = hasDataFile ? 0 : this.#order.checkUntaken(first * clusterBytes, count * clusterBytes);
    if (errno === 0) errno = this.#fill(head, offsetBytes, shift, isFresh);
    if (errno === 0) errno = writeAll(this.#calls, this.#fd, offsetBytes + shift, to - offsetBytes, source, at);
    if (errno === 0) errno = this.#fill(to, tail, shift, isFresh);
    if (errno !== 0) {
      if (!hasDataFile) allocator.cancel(first, count);
      return errno;
    }
    this.#order.willPoint();
    for (let each = 0; each < count; each += 1) {
      const begin = (guest + each) * clusterBytes;
      this.#change.decode(slot, index + each);
      const touched = this.#change.units(head - begin, tail - begin);
      this.#change.dropOld();
      this.#point(slot, index + each, (first + each) * clusterBytes, touched, this.#change.entry.zero & ~touched);
    }
    this.doneBytes = to - offsetBytes;
    return 0;
  }

  /** In a cluster that is the image's own, where some of the units have no data yet. */
  #writeInto(slot: number, index: number, offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    const { clusterBytes, unitBytes } = this.#geometry;
    const begin = floorTo(offsetBytes, clusterBytes);
    const { high, low, allocated, zero } = this.#change.entry;
    const host = hostOffset(high, low);
    const to = Math.min(offsetBytes + length, begin + clusterBytes);
    const head = floorTo(offsetBytes, unitBytes);
    const tail = ceilTo(to, unitBytes);
    const touched = this.#change.units(head - begin, tail - begin);
    const isThere = (unitOffset: number) =>
      ((allocated >>> (Math.floor((unitOffset - begin) / unitBytes) & 31)) & 1) !== 0;
    const shift = host - begin;
    if (host < 0 || host % clusterBytes !== 0 || (this.#geometry.hasDataFile && shift !== 0)) return EIO;
    let errno = this.#geometry.hasDataFile ? 0 : this.#order.checkUntaken(host, clusterBytes);
    if (errno === 0 && !isThere(head)) errno = this.#fill(head, offsetBytes, shift, false);
    if (errno === 0) errno = writeAll(this.#calls, this.#fd, offsetBytes + shift, to - offsetBytes, source, at);
    if (errno === 0 && !isThere(to - 1)) errno = this.#fill(to, tail, shift, false);
    if (errno !== 0) return errno;
    if (!this.#geometry.hasDataFile) this.#order.allocator.wasWritten(host / clusterBytes);
    this.doneBytes = to - offsetBytes;
    if ((allocated & touched) === touched) return 0;
    this.#order.willPoint();
    this.#point(slot, index, host, allocated | touched, zero & ~touched);
    return 0;
  }

  /** Whether a new cluster for this one takes over all that the old one has. */
  #isCopiedWhole(slot: number, index: number): boolean {
    this.#change.decode(slot, index);
    return this.#change.entry.allocated !== 0 || isCompressed(this.#change.entry.high);
  }

  #point(slot: number, index: number, host: number, allocated: number, zero: number): void {
    this.#change.put(slot, index, copiedHigh(host), offsetLow(host), allocated, zero);
  }

  /** Writes what a part of the disk was to where it will be. */
  #fill(from: number, to: number, shift: number, isFresh: boolean): number {
    for (let at = from; at < to; ) {
      const length = Math.min(COPY_BYTES, to - at);
      const isZero = this.#old.isZero(at, length);
      if (!isZero || !isFresh) {
        const buffer = this.#bufferOf(length);
        if (isZero) buffer.fill(0, 0, length);
        let errno = isZero ? 0 : this.#old.read(at, length, buffer, 0);
        if (errno === 0) errno = writeAll(this.#calls, this.#fd, at + shift, length, buffer, 0);
        if (errno !== 0) return errno;
      }
      at += length;
    }
    return 0;
  }

  #bufferOf(length: number): Uint8Array {
    if (this.#buffer.length < length) this.#buffer = new Uint8Array(length);
    return this.#buffer;
  }
}

function floorTo(value: number, step: number): number {
  return value - (value % step);
}

function ceilTo(value: number, step: number): number {
  return Math.ceil(value / step) * step;
}
