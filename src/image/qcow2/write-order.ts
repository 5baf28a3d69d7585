import { constants } from 'node:os';
import type { FileCalls } from '../file-calls.js';
import { StableStorage } from '../stable-storage.js';
import { Allocator, type AllocatorDuties } from './allocator.js';
import { DroppedClusters } from './dropped-clusters.js';
import type { Geometry } from './geometry.js';
import type { Qcow2Handle } from './handle.js';
import { HeaderChanges } from './header-changes.js';
import type { L2Tables } from './l2-tables.js';
import {
  FRESH_FROM,
  IS_CORRUPT,
  IS_DIRTY,
  IS_PREPARED,
  POINTED,
  POINTED_SYNCED,
  type Qcow2Memory,
  setCorrupt,
  TABLE_CLUSTERS,
  TABLE_ROOM,
  type WriteMemory,
} from './memory.js';
import { growRefcountTable } from './refcount-table-growth.js';
import { Refcounts } from './refcounts.js';
import { type FlushDuties, TableFlush } from './table-flush.js';
import { TablePlaces } from './table-places.js';
import { TableWrites } from './table-writes.js';
import type { WorkerTurns } from './worker-turns.js';

const { EIO } = constants.errno;

/** The autoclear bit of an image whose data file can be read as a raw image. */
const RAW_DATA_FILE = 2;

/**
 * What becomes durable when. Data and refcounts are in the file before an L2 entry that needs them, tables before what
 * points to them, each behind a sync; and a refcount is lowered only when no entry on stable storage needs it. So
 * wherever the power is cut, every cluster that an entry in the file points to is there, with its data, and counted: at
 * worst clusters are counted that nobody points to. A stage with nothing to write is skipped.
 *
 * - a cluster's data are written before its entry changes in memory
 * - refcounts → sync → refcount table → sync → L2 slices, L1 entries → sync → refcounts may be lowered
 * - an L2 table is zeroes, or the copy of what it replaces, in the file before the first of these syncs; so its L1 entry
 *   may reach the disk before its slices do
 *
 * A sync takes as long as the disk likes: a flush waits for it without the lock (`TableFlush`). What a refcount table that grows, or full
 * memory, waits for is synced under the lock.
 */
export class WriteOrder implements AllocatorDuties, FlushDuties {
  readonly refcounts: Refcounts;
  readonly allocator: Allocator;
  readonly dropped: DroppedClusters;
  readonly storage: StableStorage;
  readonly #geometry: Geometry;
  readonly #memory: Qcow2Memory;
  readonly #write: WriteMemory;
  readonly #tables: L2Tables;
  readonly #file: TableWrites;
  readonly #header: HeaderChanges;
  readonly #places: TablePlaces;
  readonly #flush: TableFlush;

  constructor(
    handle: Qcow2Handle,
    write: WriteMemory,
    tables: L2Tables,
    calls: FileCalls,
    turns: WorkerTurns | undefined,
  ) {
    const { geometry, memory, fd, dataFd } = handle;
    const file = { clusterBytes: geometry.clusterBytes, fd, calls };
    this.#geometry = geometry;
    this.#memory = memory;
    this.#write = write;
    this.#tables = tables;
    const fds = dataFd === fd ? [fd] : [dataFd, fd];
    this.storage = new StableStorage(
      handle.shared,
      () => fds.reduce((errno, each) => (errno === 0 ? 0 - calls.sync(each) : errno), 0),
      () => calls.openBegunSync(fds),
    );
    this.#header = new HeaderChanges(fd, calls, this.storage);
    this.refcounts = new Refcounts(geometry, write, fd, calls);
    this.allocator = new Allocator(geometry, write, this.refcounts, this, file);
    this.dropped = new DroppedClusters(this.allocator, this.refcounts, write, this, turns, file);
    const { refcounts } = this;
    const { areas } = this.allocator;
    this.#places = new TablePlaces(geometry, write, areas, refcounts, tables);
    const markCorrupt = () => this.markCorrupt();
    const image = { geometry, memory, write, tables, refcounts, areas, places: this.#places, fd, calls, markCorrupt };
    this.#file = new TableWrites(image);
    this.#flush = new TableFlush(this, { memory, write, tables, file: this.#file });
    // What is freed changes refcounts anew: it waits while somebody needs room for some.
    this.refcounts.clean = () => this.writeLocked();
    tables.clean = () => this.flushLocked();
  }

  /** Whether writes are still taken. Answers 0 or EIO. */
  get state(): number {
    return this.storage.failed || Atomics.load(this.#memory.fields, IS_CORRUPT) !== 0 ? EIO : 0;
  }

  get isPrepared(): boolean {
    return Atomics.load(this.#memory.fields, IS_PREPARED) !== 0;
  }

  /** Without the lock: answers 0 once everything that any worker wrote before is on stable storage. */
  flush(): number {
    let errno = this.#flush.put();
    if (errno === 0) errno = this.storage.flush();
    if (errno !== 0 || !this.#flush.frees) return errno;
    return this.#free(this.#flush.takeSealed(), (act) => this.#tables.hold(act));
  }

  /** Begins a flush: its last sync goes on beside what follows. False: it is one for `flush`. */
  beginFlush(): boolean {
    return !this.dropped.frees && this.#flush.put() === 0 && !this.#flush.frees && this.storage.begin();
  }

  /** Under the lock, before a change: what the header says is not made untrue by it. */
  prepare(): number {
    if (this.state !== 0) return EIO;
    if (this.isPrepared) return 0;
    const errno = this.#header.clearAutoclear(this.#geometry.rawDataFile ? RAW_DATA_FILE : 0);
    if (errno === 0) Atomics.store(this.#memory.fields, IS_PREPARED, 1);
    return errno;
  }

  /** Under the lock: an entry changes, to one that points to what was written just now; or that is as if it did. */
  willPoint(): void {
    const { numbers } = this.#write;
    numbers[POINTED] = (numbers[POINTED] ?? 0) + 1;
    this.willChange();
  }

  willChange(): void {
    Atomics.store(this.#memory.fields, IS_DIRTY, 1);
  }

  flushLocked(): number {
    const errno = this.writeLocked();
    if (errno !== 0) return errno;
    Atomics.store(this.#memory.fields, IS_DIRTY, 0);
    return this.settle();
  }

  /** Under the lock: brings everything to stable storage, and frees nothing. */
  writeLocked(): number {
    const errno = this.putTables();
    return errno === 0 ? this.storage.flush() : errno;
  }

  /** Under the lock, with all that is in memory in the file, on stable storage: what nobody points to is free. Answers 0 or a positive errno. */
  settle(): number {
    return this.#free(Number.POSITIVE_INFINITY, (act) => act());
  }

  /** With what no longer points to what was dropped until `sealed` on stable storage; `locked` has something done under the lock. */
  #free(sealed: number, locked: (act: () => number) => number): number {
    const { dropped } = this;
    let errno = locked(() => (this.state === 0 ? dropped.take(sealed) : EIO));
    if (errno === 0) dropped.giveBackTaken();
    while (errno === 0 && dropped.hasTaken) errno = locked(() => this.#freeTaken());
    return errno;
  }

  /** Under the lock: some of it. */
  #freeTaken(): number {
    if (this.state !== 0) return EIO;
    const errno = this.dropped.freeTaken();
    this.willChange();
    return errno;
  }

  /** Under the lock: has every table in the file, the refcounts on stable storage before what relies on them. */
  putTables(): number {
    if (this.state !== 0) return EIO;
    const { numbers } = this.#write;
    const { hasEntries } = this.#file;
    const needsSync = this.needsSync();
    let errno = this.writeRefcounts();
    if (errno === 0 && hasEntries && needsSync) {
      errno = this.storage.flush();
      if (errno === 0) numbers[POINTED_SYNCED] = numbers[POINTED] ?? 0;
    }
    return errno === 0 && hasEntries ? this.#file.writeEntries() : errno;
  }

  needsSync(): boolean {
    const { numbers } = this.#write;
    return numbers[POINTED] !== numbers[POINTED_SYNCED] || this.refcounts.cache.hasDirty();
  }

  /** Under the lock: refcounts, and behind a sync of their own the table that points to new blocks. */
  writeRefcounts(): number {
    let errno = this.writeCounts();
    if (errno !== 0 || !this.#file.hasBlocks) return errno;
    errno = this.storage.flush();
    if (errno === 0) errno = this.#file.writeBlocks(this.#file.copyBlocks());
    return errno === 0 ? this.storage.flush() : errno;
  }

  writeCounts(): number {
    const errno = this.#reachEnd();
    return errno === 0 ? this.#file.writeRefcounts() : errno;
  }

  /** After a failure half-way memory and file are not the same any more: nothing is written until the image is opened again. */
  growTable(cluster: number): number {
    const writeHeader = (at: number, bytes: Uint8Array) => this.#header.write(at, bytes);
    const errno = growRefcountTable(cluster, this.#geometry, this.#write, this, writeHeader);
    const { numbers } = this.#write;
    const isHalfDone = numbers[TABLE_ROOM] !== numbers[TABLE_CLUSTERS];
    if (errno !== 0 && isHalfDone) setCorrupt(this.#memory.fields);
    return errno;
  }

  writeTable(offsetBytes: number): number {
    return this.#file.writeTable(offsetBytes);
  }

  markCorrupt(): number {
    if (setCorrupt(this.#memory.fields) && this.#geometry.version >= 3) this.#header.setCorrupt();
    return EIO;
  }

  /** Before data, or a new table, are written to clusters of the file: none may hold a table. Answers 0, or EIO for good. */
  checkUntaken(offsetBytes: number, length: number): number {
    const { clusterBytes } = this.#geometry;
    const first = Math.floor(offsetBytes / clusterBytes);
    const clusters = Math.ceil((offsetBytes + length) / clusterBytes) - first;
    return this.#places.hasAny(first, clusters) ? this.markCorrupt() : 0;
  }

  isTableInUse(cluster: number): boolean {
    return this.#places.isInUse(cluster);
  }

  writeZeroCluster(cluster: number): number {
    return this.#file.writeZeroCluster(cluster);
  }

  /** The file has every cluster that is counted: a table that it ends in would be none to others. */
  #reachEnd(): number {
    const { numbers } = this.#write;
    const end = (numbers[FRESH_FROM] ?? 0) * this.#geometry.clusterBytes;
    return this.allocator.reach(end);
  }
}
