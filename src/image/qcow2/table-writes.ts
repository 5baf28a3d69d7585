import type { FileCalls } from '../file-calls.js';
import { writeAll } from '../whole-calls.js';
import type { Geometry } from './geometry.js';
import type { L2Tables } from './l2-tables.js';
import {
  ENTRIES_WRITTEN,
  FRESH_FROM,
  L1_DIRTY_FROM,
  L1_DIRTY_TO,
  type Qcow2Memory,
  type WriteMemory,
} from './memory.js';
import { L2_TABLE, type MetadataAreas, REFCOUNT_BLOCK } from './metadata-areas.js';
import type { Refcounts } from './refcounts.js';
import type { TablePlaces } from './table-places.js';

const ENTRY_BYTES = 8;
const ZERO_PIECE_BYTES = 65_536;

const zeroes = new Uint8Array(ZERO_PIECE_BYTES);

/** What tables are written to, and what they are held against before. */
export interface WrittenImage {
  readonly geometry: Geometry;
  readonly memory: Qcow2Memory;
  readonly write: WriteMemory;
  readonly tables: L2Tables;
  readonly refcounts: Refcounts;
  readonly areas: MetadataAreas;
  readonly places: TablePlaces;
  readonly fd: number;
  readonly calls: FileCalls;
  /** The tables contradict each other. Answers EIO. */
  markCorrupt(): number;
}

/** Writes tables to the file, all under the lock, in no order of its own: none over a table of another kind. Each answers 0 or a positive errno. */
export class TableWrites {
  readonly #image: WrittenImage;

  constructor(image: WrittenImage) {
    this.#image = image;
  }

  /** Whether entries of L2 tables or of the L1 table are not yet in the file. */
  get hasEntries(): boolean {
    const { tables, write } = this.#image;
    return tables.cache.hasDirty() || write.numbers[L1_DIRTY_FROM] !== write.numbers[L1_DIRTY_TO];
  }

  writeEntries(): number {
    const { geometry, memory, tables, write, fd, calls } = this.#image;
    const { sliceBytes, slicesPerTable, clusterBytes, l1OffsetBytes } = geometry;
    const { numbers } = write;
    numbers[ENTRIES_WRITTEN] = (numbers[ENTRIES_WRITTEN] ?? 0) + 1;
    let errno = tables.cache.writeDirty((slice, bytes, at) => {
      const table = tables.offsetOf(slice);
      if (table <= 0 || this.#holdsOther(table / clusterBytes, REFCOUNT_BLOCK)) return this.#image.markCorrupt();
      return writeAll(calls, fd, table + (slice % slicesPerTable) * sliceBytes, sliceBytes, bytes, at);
    });
    const [from = 0, to = 0] = [numbers[L1_DIRTY_FROM], numbers[L1_DIRTY_TO]];
    if (errno !== 0 || from === to) return errno;
    errno = this.writeWords(memory.l1, l1OffsetBytes, from, to);
    if (errno === 0) numbers[L1_DIRTY_FROM] = to;
    return errno;
  }

  writeRefcounts(): number {
    const { geometry, refcounts, fd, calls } = this.#image;
    const { sliceBytes, clusterBytes } = geometry;
    return refcounts.cache.writeDirty((slice, bytes, at) => {
      const offsetBytes = refcounts.sliceOffset(slice);
      const cluster = Math.floor(offsetBytes / clusterBytes);
      if (offsetBytes < 0 || this.#holdsOther(cluster, L2_TABLE)) return this.#image.markCorrupt();
      return writeAll(calls, fd, offsetBytes, sliceBytes, bytes, at);
    });
  }

  /** Entries `from` to `to` of a table that begins at `offsetBytes`. */
  writeWords(words: Int32Array<SharedArrayBuffer>, offsetBytes: number, from: number, to: number): number {
    const { fd, calls } = this.#image;
    const bytes = new Uint8Array(words.buffer);
    const length = (to - from) * ENTRY_BYTES;
    return writeAll(calls, fd, offsetBytes + from * ENTRY_BYTES, length, bytes, from * ENTRY_BYTES);
  }

  /** Has a cluster of the file read as zeroes. */
  writeZeroCluster(cluster: number): number {
    const { geometry, write, fd, calls } = this.#image;
    const { clusterBytes } = geometry;
    if (cluster >= (write.numbers[FRESH_FROM] ?? 0)) return 0;
    for (let done = 0; done < clusterBytes; done += ZERO_PIECE_BYTES) {
      const pieceBytes = Math.min(ZERO_PIECE_BYTES, clusterBytes - done);
      const errno = writeAll(calls, fd, cluster * clusterBytes + done, pieceBytes, zeroes, 0);
      if (errno !== 0) return errno;
    }
    return 0;
  }

  /** Whether a cluster holds a table of the `other` kind, or one that stays where it is. */
  #holdsOther(cluster: number, other: typeof L2_TABLE | typeof REFCOUNT_BLOCK): boolean {
    const { areas, places } = this.#image;
    return areas.hasFixed(cluster, 1) || areas.has(cluster, other) || places.hasRefcountTable(cluster, 1);
  }
}
