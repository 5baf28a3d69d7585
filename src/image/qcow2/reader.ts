import type { FileCalls } from '../file-calls.js';
import type { DataPlace, Extent, Image } from '../image.js';
import { readZeroed } from '../whole-calls.js';
import type { OldContent } from './cluster-change.js';
import { COMPRESSED, DATA, UNALLOCATED, ZEROES_ALLOCATED } from './cluster-kind.js';
import type { ClusterMap } from './cluster-map.js';
import type { CompressedClusters } from './compressed-clusters.js';
import type { WorkerTurns } from './worker-turns.js';

/** Files that an image is read from, in one worker. */
export interface ReaderParts {
  /** Where the data are: by which they are read, past the page cache perhaps. */
  readonly dataFile: Pick<DataPlace, 'fd' | 'blockBytes'>;
  readonly calls: FileCalls;
  /** Of compressed clusters. */
  readonly compressed: CompressedClusters;
  /** What unallocated clusters are read from. */
  readonly backing: Image | undefined;
}

/** Reads a qcow2 image. Where it has nothing of its own, its backing file shows through, and behind that, zeroes. */
export class Qcow2Reader implements OldContent {
  readonly map: ClusterMap;
  readonly #dataFile: ReaderParts['dataFile'];
  readonly #calls: FileCalls;
  readonly #backing: Image | undefined;
  readonly #backingBytes: number;
  readonly #compressed: CompressedClusters;

  constructor(map: ClusterMap, { dataFile, calls, compressed, backing }: ReaderParts) {
    this.map = map;
    this.#dataFile = dataFile;
    this.#calls = calls;
    this.#compressed = compressed;
    this.#backing = backing;
    this.#backingBytes = backing?.sizeBytes ?? 0;
  }

  read(offsetBytes: number, length: number, target: Uint8Array, at: number): number {
    const map = this.map;
    for (let done = 0; done < length; ) {
      const from = offsetBytes + done;
      let errno = map.find(from, length - done);
      if (errno !== 0) return errno;
      const bytes = map.lengthBytes;
      const to = at + done;
      if (map.kind === DATA) {
        errno = readZeroed(this.#calls, this.#dataFile.fd, map.hostBytes, bytes, target, to);
      } else if (map.kind === COMPRESSED) {
        const skip = from % this.map.clusterBytes;
        errno = this.#compressed.read(map.entryHigh, map.entryLow, skip, bytes, target, to);
      } else if (map.kind === UNALLOCATED) errno = this.#readBacking(from, bytes, target, to);
      else target.fill(0, to, to + bytes);
      if (errno !== 0) return errno;
      done += bytes;
    }
    return 0;
  }

  status(offsetBytes: number, length: number, extent: Extent): number {
    const map = this.map;
    const errno = map.find(offsetBytes, length);
    if (errno !== 0) return errno;
    const { kind, lengthBytes, hostBytes } = map;
    if (kind === UNALLOCATED) return this.#backingStatus(offsetBytes, lengthBytes, extent);
    extent.lengthBytes = lengthBytes;
    extent.zero = kind !== DATA && kind !== COMPRESSED;
    extent.hole = extent.zero && kind !== ZEROES_ALLOCATED;
    extent.depth = 1;
    extent.hostBytes = kind === DATA || kind === ZEROES_ALLOCATED ? hostBytes : -1;
    return 0;
  }

  findPlace(offsetBytes: number, length: number, place: DataPlace): boolean {
    const map = this.map;
    if (map.find(offsetBytes, length) !== 0 || map.lengthBytes < length) return false;
    if (map.kind === UNALLOCATED) {
      const isAllThere = offsetBytes + length <= this.#backingBytes;
      return isAllThere && this.#backing?.findPlace(offsetBytes, length, place) === true;
    }
    if (map.kind !== DATA) return false;
    place.fd = this.#dataFile.fd;
    place.blockBytes = this.#dataFile.blockBytes;
    place.offsetBytes = map.hostBytes;
    return true;
  }

  /** `turns` of who writes to the image: what is put into the pipe is not free meanwhile. */
  readIntoPipe(offsetBytes: number, length: number, pipeFd: number, turns: WorkerTurns | undefined): number {
    let done = 0;
    while (done < length) {
      const moved = this.#pieceIntoPipe(offsetBytes + done, length - done, pipeFd, turns);
      if (moved <= 0) break;
      done += moved;
    }
    return done;
  }

  cache(offsetBytes: number, length: number): number {
    const map = this.map;
    for (let done = 0; done < length; ) {
      const from = offsetBytes + done;
      let errno = map.find(from, length - done);
      if (errno !== 0) return errno;
      const bytes = map.lengthBytes;
      if (map.kind === DATA) this.#calls.willNeed(this.#dataFile.fd, map.hostBytes, bytes);
      else if (map.kind === UNALLOCATED && from < this.#backingBytes && this.#backing !== undefined) {
        errno = this.#backing.cache(from, Math.min(bytes, this.#backingBytes - from));
      }
      if (errno !== 0) return errno;
      done += bytes;
    }
    return 0;
  }

  isZero(offsetBytes: number, length: number): boolean {
    const map = this.map;
    if (map.find(offsetBytes, length) !== 0 || map.lengthBytes < length) return false;
    if (map.kind === UNALLOCATED) return !this.hasBacking(offsetBytes);
    return map.kind !== DATA && map.kind !== COMPRESSED;
  }

  hasBacking(offsetBytes: number): boolean {
    return offsetBytes < this.#backingBytes;
  }

  relax(): void {
    this.#compressed.relax();
    this.#calls.relax?.();
    this.#backing?.relax();
  }

  close(): void {
    this.#backing?.close();
  }

  /** A backing file may be shorter than the image: behind it are zeroes. */
  #readBacking(offsetBytes: number, length: number, target: Uint8Array, at: number): number {
    const there = Math.max(0, Math.min(length, this.#backingBytes - offsetBytes));
    target.fill(0, at + there, at + length);
    return there === 0 || this.#backing === undefined ? 0 : this.#backing.read(offsetBytes, there, target, at);
  }

  #backingStatus(offsetBytes: number, length: number, extent: Extent): number {
    if (this.#backing === undefined || offsetBytes >= this.#backingBytes) {
      extent.lengthBytes = length;
      extent.hole = true;
      extent.zero = true;
      extent.depth = 0;
      extent.hostBytes = -1;
      return 0;
    }
    const errno = this.#backing.status(offsetBytes, Math.min(length, this.#backingBytes - offsetBytes), extent);
    if (extent.depth > 0) extent.depth += 1;
    return errno;
  }

  #pieceIntoPipe(offsetBytes: number, length: number, pipeFd: number, turns: WorkerTurns | undefined): number {
    const map = this.map;
    if (map.find(offsetBytes, length) !== 0) return 0;
    const { kind, hostBytes, lengthBytes } = map;
    if (kind === DATA) {
      const first = Math.floor(hostBytes / map.clusterBytes);
      const end = Math.ceil((hostBytes + lengthBytes) / map.clusterBytes);
      if (turns?.lend(first, end, lengthBytes) === false) return 0;
      return this.#calls.intoPipe(this.#dataFile.fd, hostBytes, lengthBytes, pipeFd);
    }
    if (kind !== UNALLOCATED || this.#backing === undefined) return 0;
    const there = Math.min(lengthBytes, this.#backingBytes - offsetBytes);
    return there <= 0 ? 0 : this.#backing.readIntoPipe(offsetBytes, there, pipeFd);
  }
}
