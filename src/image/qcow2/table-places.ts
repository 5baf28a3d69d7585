import type { Geometry } from './geometry.js';
import type { L2Tables } from './l2-tables.js';
import { TABLE_CLUSTERS, TABLE_OFFSET, type WriteMemory } from './memory.js';
import type { MetadataAreas } from './metadata-areas.js';
import type { Refcounts } from './refcounts.js';

/** Tells where an image's tables lie: those that never move and those that do. */
export class TablePlaces {
  readonly #geometry: Geometry;
  readonly #write: WriteMemory;
  readonly #areas: MetadataAreas;
  readonly #refcounts: Refcounts;
  readonly #tables: L2Tables;

  constructor(geometry: Geometry, write: WriteMemory, areas: MetadataAreas, refcounts: Refcounts, tables: L2Tables) {
    this.#geometry = geometry;
    this.#write = write;
    this.#areas = areas;
    this.#refcounts = refcounts;
    this.#tables = tables;
  }

  /** Whether a table lies in one of the clusters, or once did. */
  hasAny(first: number, clusters: number): boolean {
    return this.#areas.hasAny(first, clusters) || this.hasRefcountTable(first, clusters);
  }

  /** Whether a cluster holds a table that is in use now. */
  isInUse(cluster: number): boolean {
    const offsetBytes = cluster * this.#geometry.clusterBytes;
    if (this.#areas.hasFixed(cluster, 1) || this.hasRefcountTable(cluster, 1)) return true;
    for (let block = 0; block < this.#refcounts.tableEntries; block += 1) {
      if (this.#refcounts.tableEntry(block) === offsetBytes) return true;
    }
    const { slices, slicesPerTable } = this.#geometry;
    for (let slice = 0; slice < slices; slice += slicesPerTable) {
      if (this.#tables.offsetOf(slice) === offsetBytes) return true;
    }
    return false;
  }

  hasRefcountTable(first: number, clusters: number): boolean {
    const { numbers } = this.#write;
    const begin = (numbers[TABLE_OFFSET] ?? 0) / this.#geometry.clusterBytes;
    return first < begin + (numbers[TABLE_CLUSTERS] ?? 0) && begin < first + clusters;
  }
}
