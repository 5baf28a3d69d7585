import { invariant } from '../../base/invariant.js';

/** What a cluster of the file holds beside data. */
export const L2_TABLE = 1;
export const REFCOUNT_BLOCK = 2;

/** Of tables: fewer are not worth counting. */
const TABLES_MIN = 32_768;
const RANGES_MAX = 70_000;
const KINDS = 4;
const HIGH = 2 ** 32;

/** Where the tables of an image lie; shared by all workers, written under the image's lock. */
export interface AreasMemory {
  /** A hash table of cluster · KINDS + kind; 0 is free. Nothing is ever taken out. */
  readonly slots: Float64Array<SharedArrayBuffer>;
  /** [used slots, used ranges, multiplier of the hash]. */
  readonly counts: Int32Array<SharedArrayBuffer>;
  /** First cluster and the one behind the last, of what never moves: apart from one another, in their order. */
  readonly ranges: Float64Array<SharedArrayBuffer>;
}

/** Memory for so many tables. */
export function newAreasMemory(tables: number): AreasMemory {
  // Half of the slots stay free.
  const size = 2 ** Math.ceil(Math.log2(2 * Math.max(TABLES_MIN, tables)));
  const counts = new Int32Array(new SharedArrayBuffer(12));
  // Nobody who makes an image can choose clusters that all fall into one slot.
  counts[2] = 2 * process.getBuiltinModule('node:crypto').randomInt(2 ** 31) + 1;
  return {
    slots: new Float64Array(new SharedArrayBuffer(size * 8)),
    counts,
    ranges: new Float64Array(new SharedArrayBuffer(RANGES_MAX * 2 * 8)),
  };
}

/**
 * Knows which clusters hold tables, so that nothing else is ever written there, whatever an image's entries and refcounts
 * claim. A table that has moved stays known: its old place is not looked at as free, which is the safe mistake.
 */
export class MetadataAreas {
  readonly #memory: AreasMemory;
  readonly #mask: number;
  /** Of a hash: what is left are as many bits as a slot's number has. */
  readonly #shift: number;

  constructor(memory: AreasMemory) {
    this.#memory = memory;
    this.#mask = memory.slots.length - 1;
    this.#shift = Math.clz32(this.#mask);
  }

  /** Under the lock: whether so many tables more can be added. */
  hasRoom(tables: number): boolean {
    const { slots, counts } = this.#memory;
    return ((counts[0] ?? 0) + tables) * 2 <= slots.length;
  }

  /** Under the lock, where there is room. */
  add(cluster: number, kind: number): void {
    const { slots, counts } = this.#memory;
    if (this.has(cluster, kind)) return;
    invariant(this.hasRoom(1), 'no table is forgotten');
    let slot = this.#slot(cluster);
    while (slots[slot] !== 0) slot = (slot + 1) & this.#mask;
    slots[slot] = cluster * KINDS + kind;
    counts[0] = (counts[0] ?? 0) + 1;
  }

  /** Clusters that hold a table for as long as the image is open, all at once: first one and count. */
  fix(areas: readonly (readonly [firstCluster: number, clusters: number])[]): void {
    const { ranges, counts } = this.#memory;
    invariant(areas.length <= RANGES_MAX, 'there are no more snapshots than the header may tell of');
    let at = -1;
    for (const [first, clusters] of areas.filter((area) => area[1] > 0).sort((a, b) => a[0] - b[0])) {
      const end = first + clusters;
      if (at >= 0 && first <= (ranges[2 * at + 1] ?? 0)) {
        ranges[2 * at + 1] = Math.max(ranges[2 * at + 1] ?? 0, end);
        continue;
      }
      at += 1;
      ranges[2 * at] = first;
      ranges[2 * at + 1] = end;
    }
    counts[1] = at + 1;
  }

  has(cluster: number, kind: number): boolean {
    const { slots } = this.#memory;
    for (let slot = this.#slot(cluster); slots[slot] !== 0; slot = (slot + 1) & this.#mask) {
      if (slots[slot] === cluster * KINDS + kind) return true;
    }
    return false;
  }

  /** Whether one of the clusters holds what never moves. */
  hasFixed(firstCluster: number, clusters: number): boolean {
    const { ranges, counts } = this.#memory;
    let from = 0;
    let to = counts[1] ?? 0;
    // The first range that ends behind the first cluster.
    while (from < to) {
      const middle = (from + to) >>> 1;
      if ((ranges[2 * middle + 1] ?? 0) <= firstCluster) from = middle + 1;
      else to = middle;
    }
    return from < (counts[1] ?? 0) && (ranges[2 * from] ?? 0) < firstCluster + clusters;
  }

  /** Whether one of the clusters holds any table at all. */
  hasAny(firstCluster: number, clusters: number): boolean {
    if (this.hasFixed(firstCluster, clusters)) return true;
    for (let cluster = firstCluster; cluster < firstCluster + clusters; cluster += 1) {
      if (this.has(cluster, L2_TABLE) || this.has(cluster, REFCOUNT_BLOCK)) return true;
    }
    return false;
  }

  #slot(cluster: number): number {
    const high = Math.imul(Math.floor(cluster / HIGH), 0x9e37_79b1);
    return Math.imul((cluster % HIGH) ^ high, this.#memory.counts[2] ?? 1) >>> this.#shift;
  }
}
