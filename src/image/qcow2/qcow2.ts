import { constants } from 'node:os';
import { BegunWrites, type OnWritten } from '../begun-writes.js';
import type { FileCalls } from '../file-calls.js';
import { type DataPlace, type Extent, type Image, NOT_BEGUN, ZERO_FAST, ZERO_MAY_PUNCH } from '../image.js';
import { writeAll } from '../whole-calls.js';
import { ClusterChange } from './cluster-change.js';
import { ClusterMap } from './cluster-map.js';
import { ClusterWriter } from './cluster-writer.js';
import { ClusterZeroer } from './cluster-zeroer.js';
import { CompressedClusters } from './compressed-clusters.js';
import { type Geometry, wholesIn } from './geometry.js';
import type { Qcow2Handle } from './handle.js';
import { InPlaceWrites } from './in-place-writes.js';
import { L2Tables } from './l2-tables.js';
import { Qcow2Reader } from './reader.js';
import { HOLDS_PLACES, WorkerTurns } from './worker-turns.js';
import { WriteOrder } from './write-order.js';

const { EOPNOTSUPP, EPERM } = constants.errno;

/** What is written where zeroes are data. */
const zeroes = new Uint8Array(1 << 20);

/** What an image works on, in one worker. */
export interface Qcow2Parts {
  /** For the tables, by the page cache. */
  readonly calls: FileCalls;
  /** For the data. */
  readonly dataCalls: FileCalls;
  /** What unallocated clusters are read from. */
  readonly backing: Image | undefined;
}

/** What a worker writes with. */
interface Writing {
  readonly turns: WorkerTurns;
  readonly order: WriteOrder;
  readonly inPlace: InPlaceWrites;
  readonly writer: ClusterWriter;
  readonly zeroer: ClusterZeroer;
}

/** A qcow2 image: clusters that are its own are read and written in their place, all else goes through its tables. */
export class Qcow2Image implements Image {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly mayHaveHoles = true;
  readonly isDirect: boolean;
  /** Some that were found are not let go. */
  #hasPlaces = false;
  readonly #geometry: Geometry;
  readonly #map: ClusterMap;
  readonly #reader: Qcow2Reader;
  readonly #dataFd: number;
  readonly #dataCalls: FileCalls;
  /** Absent for an image that is only read. */
  readonly #writing: Writing | undefined;

  constructor(handle: Qcow2Handle, { calls, dataCalls, backing }: Qcow2Parts) {
    const { geometry, memory, fd } = handle;
    this.sizeBytes = handle.sizeBytes;
    this.readOnly = handle.readOnly;
    this.#geometry = geometry;
    this.#dataCalls = dataCalls;
    this.#dataFd = handle.direct?.fd ?? handle.dataFd;
    this.isDirect = handle.direct !== undefined;
    const tables = new L2Tables(geometry, memory, fd, calls);
    this.#map = new ClusterMap(geometry, tables);
    const compressed = new CompressedClusters(geometry, fd, calls);
    const dataFile = handle.direct ?? { fd: handle.dataFd, blockBytes: 1 };
    this.#reader = new Qcow2Reader(this.#map, { dataFile, calls: dataCalls, compressed, backing });
    if (memory.write === undefined) return;
    const turns = new WorkerTurns(memory.write.turns);
    const order = new WriteOrder(handle, memory.write, tables, calls, turns);
    const change = new ClusterChange(geometry, tables, order, { fd, calls });
    const data = { fd: this.#dataFd, calls: dataCalls };
    const begun = handle.direct && new BegunWrites(handle.direct, handle.shared);
    const inPlace = new InPlaceWrites(geometry, this.#map, order, turns, begun);
    tables.beforeWait = () => inPlace.settle();
    const writer = new ClusterWriter(geometry, order, change, data, this.#reader);
    const zeroer = new ClusterZeroer(geometry, order, change, { ...data, fd: handle.dataFd }, this.#reader);
    this.#writing = { turns, order, inPlace, writer, zeroer };
  }

  read(offsetBytes: number, length: number, target: Uint8Array, at: number): number {
    this.#writing?.turns.begin();
    const errno = this.#reader.read(offsetBytes, length, target, at);
    this.#writing?.turns.end();
    return errno;
  }

  write(offsetBytes: number, length: number, source: Uint8Array, at: number, durable: boolean): number {
    const writing = this.#writing;
    if (writing === undefined) return EPERM;
    const errno = this.#change(writing, () => this.#writeRange(writing, offsetBytes, length, source, at));
    return errno === 0 && durable ? writing.order.flush() : errno;
  }

  get beginsWrites(): boolean {
    return this.#writing?.inPlace.mayBegin === true;
  }

  beginWrite(offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    return this.#writing?.inPlace.begin(offsetBytes, length, source, at) ?? NOT_BEGUN;
  }

  get begunWritesFd(): number {
    return this.#writing?.inPlace.readableFd ?? -1;
  }

  takeWrites(waitFor: number, onWritten: OnWritten): void {
    this.#writing?.inPlace.take(waitFor, onWritten);
  }

  zero(offsetBytes: number, length: number, ways: number, durable: boolean): number {
    const writing = this.#writing;
    if (writing === undefined) return EPERM;
    const errno = this.#change(writing, () => this.#zeroRange(writing, offsetBytes, length, ways));
    return errno === 0 && durable ? writing.order.flush() : errno;
  }

  trim(offsetBytes: number, length: number, durable: boolean): number {
    const writing = this.#writing;
    if (writing === undefined) return EPERM;
    const errno = this.#change(writing, () => this.#trimRange(writing, offsetBytes, length));
    return errno === 0 && durable ? writing.order.flush() : errno;
  }

  status(offsetBytes: number, length: number, extent: Extent): number {
    this.#writing?.turns.begin();
    const errno = this.#reader.status(offsetBytes, length, extent);
    this.#writing?.turns.end();
    return errno;
  }

  findPlace(offsetBytes: number, length: number, place: DataPlace): boolean {
    const turns = this.#writing?.turns;
    if (turns === undefined) return this.#reader.findPlace(offsetBytes, length, place);
    turns.begin();
    const isFound = turns.holdPlaces(HOLDS_PLACES) && this.#reader.findPlace(offsetBytes, length, place);
    this.#hasPlaces ||= isFound;
    if (!this.#hasPlaces) turns.letGo(HOLDS_PLACES);
    turns.end();
    return isFound;
  }

  letGoPlaces(): void {
    this.#hasPlaces = false;
    this.#writing?.turns.letGo(HOLDS_PLACES);
  }

  readIntoPipe(offsetBytes: number, length: number, pipeFd: number): number {
    const turns = this.#writing?.turns;
    if (turns === undefined) return this.#reader.readIntoPipe(offsetBytes, length, pipeFd, undefined);
    const { lentBytes } = turns;
    turns.begin();
    const moved = this.#reader.readIntoPipe(offsetBytes, length, pipeFd, turns);
    turns.end();
    if (moved < length) turns.lentBytes = lentBytes;
    return moved;
  }

  get lendsPages(): boolean {
    return this.#writing !== undefined;
  }

  takeBackPages(): void {
    this.#writing?.turns.takeBack();
  }

  cache(offsetBytes: number, length: number): number {
    this.#writing?.turns.begin();
    const errno = this.#reader.cache(offsetBytes, length);
    this.#writing?.turns.end();
    return errno;
  }

  flush(): number {
    return this.#writing?.order.flush() ?? 0;
  }

  beginFlush(): boolean {
    return this.#writing?.order.beginFlush() ?? false;
  }

  get begunFlushFd(): number {
    return this.#writing?.order.storage.begunFd ?? -1;
  }

  get isFlushDone(): boolean {
    return this.#writing?.order.storage.isBegunDone ?? true;
  }

  finishFlush(): number {
    return this.#writing?.order.storage.finish() ?? 0;
  }

  relax(): void {
    this.#reader.relax();
    this.#writing?.inPlace.relax();
    this.#writing?.writer.relax();
  }

  close(): void {
    this.#reader.close();
    this.#writing?.inPlace.close();
    this.#writing?.order.storage.close();
    this.#writing?.turns.close();
  }

  #change({ turns, order }: Writing, act: () => number): number {
    if (order.state !== 0) return order.state;
    turns.begin();
    const errno = act();
    turns.end();
    return errno;
  }

  #writeRange(writing: Writing, offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    const { inPlace, writer } = writing;
    const map = this.#map;
    for (let done = 0; done < length; ) {
      let errno = map.find(offsetBytes + done, length - done);
      if (errno !== 0) return errno;
      let bytes = map.lengthBytes;
      if (inPlace.isPossible) {
        errno = inPlace.check();
        if (errno === 0) errno = writeAll(this.#dataCalls, this.#dataFd, map.hostBytes, bytes, source, at + done);
      } else {
        errno = writer.write(offsetBytes + done, bytes, source, at + done);
        bytes = writer.doneBytes;
      }
      if (errno !== 0) return errno;
      done += bytes;
    }
    return 0;
  }

  #zeroRange(writing: Writing, offsetBytes: number, length: number, ways: number): number {
    const { version } = this.#geometry;
    const isFast = (ways & ZERO_FAST) !== 0;
    const [from, to] = this.#map.wholeUnits(offsetBytes, length);
    const end = offsetBytes + length;
    // Version 2 has no zeroes, only nothing: a backing file would show through.
    const canSkip = from < to && (version >= 3 || !this.#reader.hasBacking(0));
    if (!canSkip)
      return isFast ? this.#alreadyZero(offsetBytes, length) : this.#writeZeroes(writing, offsetBytes, length);
    if (isFast && (this.#alreadyZero(offsetBytes, from - offsetBytes) || this.#alreadyZero(to, end - to))) {
      return EOPNOTSUPP;
    }
    let errno = this.#writeZeroes(writing, offsetBytes, from - offsetBytes);
    if (errno === 0) errno = writing.zeroer.zero(from, to - from, (ways & ZERO_MAY_PUNCH) !== 0);
    return errno === 0 ? this.#writeZeroes(writing, to, end - to) : errno;
  }

  #trimRange(writing: Writing, offsetBytes: number, length: number): number {
    const { version, clusterBytes } = this.#geometry;
    const [from, to] = wholesIn(this.#geometry, clusterBytes, offsetBytes, length);
    if (from >= to || (version < 3 && this.#reader.hasBacking(0))) return 0;
    return writing.zeroer.discard(from, to - from);
  }

  /** 0 where a range reads as zeroes without anything being written, EOPNOTSUPP where it does not. */
  #alreadyZero(offsetBytes: number, length: number): number {
    for (let done = 0; done < length; ) {
      if (this.#map.find(offsetBytes + done, length - done) !== 0) return EOPNOTSUPP;
      const bytes = this.#map.lengthBytes;
      if (!this.#reader.isZero(offsetBytes + done, bytes)) return EOPNOTSUPP;
      done += bytes;
    }
    return 0;
  }

  #writeZeroes(writing: Writing, offsetBytes: number, length: number): number {
    for (let done = 0; done < length; ) {
      let errno = this.#map.find(offsetBytes + done, Math.min(zeroes.length, length - done));
      if (errno !== 0) return errno;
      const bytes = this.#map.lengthBytes;
      const isZero = this.#reader.isZero(offsetBytes + done, bytes);
      if (!isZero) errno = this.#writeRange(writing, offsetBytes + done, bytes, zeroes, 0);
      if (errno !== 0) return errno;
      done += bytes;
    }
    return 0;
  }
}
