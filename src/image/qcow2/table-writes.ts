import type { FileCalls } from '../file-calls.js';
import { writeAll } from '../whole-calls.js';
import type { Geometry } from './geometry.js';
import type { L2Tables } from './l2-tables.js';
import {
  FRESH_FROM,
  L1_CHANGES,
  L1_DIRTY_FROM,
  L1_DIRTY_TO,
  L1_WRITTEN,
  POINTED,
  type Qcow2Memory,
  TABLE_CHANGES,
  TABLE_DIRTY_FROM,
  TABLE_DIRTY_TO,
  TABLE_OFFSET,
  TABLE_WRITTEN,
  type WriteMemory,
} from './memory.js';
import { L2_TABLE, type MetadataAreas, REFCOUNT_BLOCK } from './metadata-areas.js';
import type { Refcounts } from './refcounts.js';
import type { SliceCopy } from './slice-cache.js';
import type { TablePlaces } from './table-places.js';

const ENTRY_BYTES = 8;
const ENTRY_WORDS = 2;
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

/** Entries from one on of a table that is in memory as a whole, which were not in the file, as they were after so many changes. */
interface RangeCopy {
  readonly from: number;
  readonly words: Int32Array;
  readonly changes: number;
}

/** Entries of L2 tables and of the L1 table that were not in the file, as they were then. */
export interface EntryCopies {
  readonly slices: readonly SliceCopy[];
  readonly l1: RangeCopy;
  /** What POINTED was. */
  readonly pointed: number;
}

/** The same of the refcount table, which began there then. */
export interface BlockCopies extends RangeCopy {
  readonly tableOffset: number;
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
    const errno = this.#image.tables.cache.writeDirty(this.#writeSlice);
    return errno === 0 ? this.#writeL1(this.#copyL1()) : errno;
  }

  /** What `writeEntries` would write now. */
  copyEntries(): EntryCopies {
    const { tables, write } = this.#image;
    return { slices: tables.cache.copyDirty(), l1: this.#copyL1(), pointed: write.numbers[POINTED] ?? 0 };
  }

  /** Writes what was copied, but nothing older than the file has. */
  writeCopies({ slices, l1 }: EntryCopies): number {
    const { tables, write } = this.#image;
    const errno = tables.cache.writeCopies(slices, this.#writeSlice);
    const isNewer = (write.numbers[L1_WRITTEN] ?? 0) < l1.changes;
    return errno === 0 && isNewer ? this.#writeL1(l1) : errno;
  }

  #copyL1(): RangeCopy {
    const { memory, write } = this.#image;
    const { [L1_DIRTY_FROM]: from = 0, [L1_DIRTY_TO]: to = 0, [L1_CHANGES]: changes = 0 } = write.numbers;
    return { from, words: memory.l1.slice(from * ENTRY_WORDS, to * ENTRY_WORDS), changes };
  }

  readonly #writeSlice = (slice: number, bytes: Uint8Array, at: number): number => {
    const { geometry, tables, fd, calls } = this.#image;
    const { sliceBytes, slicesPerTable, clusterBytes } = geometry;
    const table = tables.offsetOf(slice);
    if (table <= 0 || this.#holdsOther(table / clusterBytes, REFCOUNT_BLOCK)) return this.#image.markCorrupt();
    return writeAll(calls, fd, table + (slice % slicesPerTable) * sliceBytes, sliceBytes, bytes, at);
  };

  #writeL1({ from, words, changes }: RangeCopy): number {
    const { geometry, write, fd, calls } = this.#image;
    const { numbers } = write;
    if (words.length === 0) return 0;
    const bytes = new Uint8Array(words.buffer);
    const errno = writeAll(calls, fd, geometry.l1OffsetBytes + from * ENTRY_BYTES, bytes.length, bytes, 0);
    if (errno !== 0) return errno;
    numbers[L1_WRITTEN] = changes;
    if (numbers[L1_CHANGES] === changes) numbers[L1_DIRTY_FROM] = numbers[L1_DIRTY_TO] ?? 0;
    return 0;
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

  /** Whether entries of the refcount table are not yet in the file. */
  get hasBlocks(): boolean {
    const { numbers } = this.#image.write;
    return numbers[TABLE_DIRTY_FROM] !== numbers[TABLE_DIRTY_TO];
  }

  /** What `writeBlocks` is to write. */
  copyBlocks(): BlockCopies {
    const { numbers, refcountTable } = this.#image.write;
    const { [TABLE_DIRTY_FROM]: from = 0, [TABLE_DIRTY_TO]: to = 0 } = numbers;
    const { [TABLE_OFFSET]: tableOffset = 0, [TABLE_CHANGES]: changes = 0 } = numbers;
    return { tableOffset, from, words: refcountTable.slice(from * ENTRY_WORDS, to * ENTRY_WORDS), changes };
  }

  /** Whether the file has nothing newer; where the table has moved, all of it was written. */
  isNewer({ tableOffset, changes }: BlockCopies): boolean {
    const { numbers } = this.#image.write;
    return numbers[TABLE_OFFSET] === tableOffset && (numbers[TABLE_WRITTEN] ?? 0) < changes;
  }

  /** Writes entries of the refcount table; a crash before they are on stable storage may have none of them. */
  writeBlocks({ tableOffset, from, words, changes }: BlockCopies): number {
    const { fd, calls, write } = this.#image;
    const { numbers } = write;
    const bytes = new Uint8Array(words.buffer);
    const errno = writeAll(calls, fd, tableOffset + from * ENTRY_BYTES, bytes.length, bytes, 0);
    if (errno !== 0) return errno;
    numbers[TABLE_WRITTEN] = changes;
    if (numbers[TABLE_CHANGES] === changes) numbers[TABLE_DIRTY_FROM] = numbers[TABLE_DIRTY_TO] ?? 0;
    return 0;
  }

  /** The whole refcount table, to where it is to begin. */
  writeTable(offsetBytes: number): number {
    const { write, refcounts, fd, calls } = this.#image;
    const bytes = new Uint8Array(write.refcountTable.buffer);
    return writeAll(calls, fd, offsetBytes, refcounts.tableEntries * ENTRY_BYTES, bytes, 0);
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
