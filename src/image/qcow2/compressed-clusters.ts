import { constants } from 'node:os';
import type { FileCalls } from '../file-calls.js';
import { readZeroed } from '../whole-calls.js';
import { decompressCluster } from './decompress.js';
import { type CompressedPlace, compressedPlace } from './entries.js';
import type { Geometry } from './geometry.js';

const { EIO } = constants.errno;

/** Reads compressed clusters. The last one is kept: clients read a cluster in pieces. Nobody changes one in its place. */
export class CompressedClusters {
  readonly #geometry: Geometry;
  readonly #fd: number;
  readonly #calls: FileCalls;
  readonly #place: CompressedPlace = { offsetBytes: 0, lengthBytes: 0 };
  #source = new Uint8Array(0);
  /** The entry of the cluster that is kept; 0 and 0 are nobody's. */
  #keptHigh = 0;
  #keptLow = 0;
  #kept: Uint8Array = new Uint8Array(0);

  constructor(geometry: Geometry, fd: number, calls: FileCalls) {
    this.#geometry = geometry;
    this.#fd = fd;
    this.#calls = calls;
  }

  /** Copies `length` bytes from byte `skip` of a cluster on, by its entry. Answers 0 or a positive errno. */
  read(high: number, low: number, skip: number, length: number, target: Uint8Array, at: number): number {
    if (high !== this.#keptHigh || low !== this.#keptLow) {
      const errno = this.#keep(high, low);
      if (errno !== 0) return errno;
    }
    target.set(this.#kept.subarray(skip, skip + length), at);
    return 0;
  }

  relax(): void {
    this.#forget();
    this.#source = new Uint8Array(0);
  }

  #keep(high: number, low: number): number {
    const { clusterBits, clusterBytes, compression } = this.#geometry;
    const place = this.#place;
    this.#forget();
    if (!compressedPlace(high, low, clusterBits, place)) return EIO;
    // An entry can name up to twice the sectors of a cluster.
    if (this.#source.length < place.lengthBytes) this.#source = new Uint8Array(2 * clusterBytes + 512);
    const source = this.#source.subarray(0, place.lengthBytes);
    const errno = readZeroed(this.#calls, this.#fd, place.offsetBytes, place.lengthBytes, source, 0);
    if (errno !== 0) return errno;
    const cluster = decompressCluster(compression, source, clusterBytes);
    if (cluster === undefined) return EIO;
    this.#kept = cluster;
    this.#keptHigh = high;
    this.#keptLow = low;
    return 0;
  }

  #forget(): void {
    this.#keptHigh = 0;
    this.#keptLow = 0;
    this.#kept = new Uint8Array(0);
  }
}
