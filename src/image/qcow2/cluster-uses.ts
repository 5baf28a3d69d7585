import { ImageError } from '../errors.js';
import type { Findings } from './check-findings.js';
import type { CheckedImage } from './checked-image.js';
import type { Geometry } from './geometry.js';
import { SparseNumbers } from './sparse-numbers.js';

/** What a cluster holds: bits. Header, snapshot table and bitmaps; L1 tables; L2 tables; refcounts; the disk's data. */
export const KIND_FIXED = 1;
export const KIND_L1 = 2;
export const KIND_L2 = 4;
export const KIND_REFCOUNTS = 8;
export const KIND_DATA = 16;

/** Of a file so long that it can only be a lie. Six bytes of memory for each that is used, with what a comparison adds. */
const CLUSTERS_MAX = 2 ** 31 - 1;

/** How often each cluster of a file is used, and for what. */
export class ClusterUses {
  /** One number a cluster of the file, and one for what begins in its last and ends behind it. */
  readonly counts: SparseNumbers;
  readonly kinds: SparseNumbers;
  /** Something is said to lie where the file does not reach. */
  pointsBehindEnd = false;
  readonly #fileBytes: number;
  readonly #clusterBytes: number;
  readonly #countMax: number;
  readonly #findings: Findings;

  /** @throws ImageError 'unsupported' */
  constructor({ path, file }: CheckedImage, { clusterBytes, refcountBits }: Geometry, findings: Findings) {
    const clusters = Math.ceil(file.fileBytes / clusterBytes);
    if (clusters > CLUSTERS_MAX) throw new ImageError('unsupported', `${path} is too long to be checked`);
    this.counts = new SparseNumbers(clusters + 1, (length) => new Uint32Array(length));
    this.kinds = new SparseNumbers(clusters + 1, (length) => new Uint8Array(length));
    this.#fileBytes = file.fileBytes;
    this.#clusterBytes = clusterBytes;
    this.#countMax = Math.min(2 ** refcountBits - 1, 2 ** 32 - 1);
    this.#findings = findings;
  }

  /** Of the file, and one more if something ends behind it. */
  get clusters(): number {
    return this.counts.length - (this.counts.get(this.counts.length - 1) === 0 ? 1 : 0);
  }

  /** Answers false where the file does not reach: less than a cluster may be missing. */
  add(offsetBytes: number, length: number, kind: number): boolean {
    if (length <= 0) return true;
    const first = Math.floor(offsetBytes / this.#clusterBytes);
    const last = Math.floor((offsetBytes + length - 1) / this.#clusterBytes);
    if (offsetBytes < 0 || offsetBytes + length - this.#fileBytes >= this.#clusterBytes || last >= this.counts.length) {
      this.pointsBehindEnd = true;
      this.#findings.corruption(`what lies at ${offsetBytes} (${length} bytes) ends behind the end of the file`);
      return false;
    }
    for (let cluster = first; cluster <= last; cluster += 1) {
      const count = this.counts.get(cluster);
      this.kinds.set(cluster, this.kinds.get(cluster) | kind);
      if (count < this.#countMax) this.counts.set(cluster, count + 1);
      else this.#findings.corruption(`cluster ${cluster} is used more often than its refcount can say`);
    }
    return true;
  }

  /** What else lies in a cluster stays counted, once at least: a narrow refcount has not counted on. */
  removeRefcounts(offsetBytes: number, length: number): void {
    const first = Math.floor(offsetBytes / this.#clusterBytes);
    const end = Math.min(Math.ceil((offsetBytes + length) / this.#clusterBytes), this.counts.length);
    for (let cluster = first; cluster < end; cluster += 1) {
      const others = this.kinds.get(cluster) & ~KIND_REFCOUNTS;
      this.kinds.set(cluster, others);
      this.counts.set(cluster, Math.max(others === 0 ? 0 : 1, this.counts.get(cluster) - 1));
    }
  }

  /** Whether a cluster holds two kinds of things. */
  isShared(cluster: number): boolean {
    const kinds = this.kinds.get(cluster);
    return (kinds & (kinds - 1)) !== 0;
  }
}
