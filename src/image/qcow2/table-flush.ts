import { constants } from 'node:os';
import type { StableStorage } from '../stable-storage.js';
import type { DroppedClusters } from './dropped-clusters.js';
import type { L2Tables } from './l2-tables.js';
import { IS_DIRTY, POINTED, POINTED_SYNCED, type Qcow2Memory, type WriteMemory } from './memory.js';
import type { Refcounts } from './refcounts.js';
import type { BlockCopies, EntryCopies, TableWrites } from './table-writes.js';

const { EIO } = constants.errno;

/** What a flush needs of the order of writes; what it calls, it calls under the lock. A number is 0 or a positive errno. */
export interface FlushDuties {
  readonly state: number;
  readonly refcounts: Refcounts;
  readonly dropped: DroppedClusters;
  readonly storage: StableStorage;
  /** Whether something that entries point to may not be on stable storage. */
  needsSync(): boolean;
  willPoint(): void;
  /** Refcounts into the file, but not which blocks they are in. */
  writeCounts(): number;
  /** Both, where there are new blocks with a sync in between and one behind. */
  writeRefcounts(): number;
  /** Has every table in the file. */
  putTables(): number;
}

/** What a flush works on. */
export interface FlushedImage {
  readonly memory: Qcow2Memory;
  readonly write: WriteMemory;
  readonly tables: L2Tables;
  readonly file: TableWrites;
}

/**
 * Brings the tables of an image into its file, in its order of writes, and waits for the syncs in between without the lock, which
 * others need to read a table and to allocate. What they change meanwhile is their own flush's: what is written behind a sync
 * is what stood there before it. Only for a refcount block that somebody makes in the middle of that is synced under the lock.
 */
export class TableFlush {
  readonly #order: FlushDuties;
  readonly #image: FlushedImage;
  /** With the tables that are in the file: whether something may be freed once they are on stable storage, and what was dropped by then. */
  #frees = false;
  #sealed = 0;

  constructor(order: FlushDuties, image: FlushedImage) {
    this.#order = order;
    this.#image = image;
  }

  /** Answers 0 with every table in the file as it is now, or later, to be made durable by a sync that begins then; or an errno. */
  put(): number {
    const { state, dropped, storage } = this.#order;
    // What is dropped in an image that is not written to any more stays.
    if (!this.#isDirty && (state !== 0 || !dropped.frees)) return 0;
    const errno = this.#image.file.hasBlocks ? this.#putBlocks() : 0;
    if (errno !== 0) return errno;
    const entries = this.#locked(() => this.#putOrCopy());
    if (typeof entries === 'number') return entries;
    const syncErrno = storage.flush();
    return syncErrno === 0 ? this.#locked(() => this.#putCopied(entries)) : syncErrno;
  }

  get frees(): boolean {
    return this.#frees;
  }

  /** Behind the sync: what was dropped until then may be freed, once. */
  takeSealed(): number {
    this.#frees = false;
    return this.#sealed;
  }

  get #isDirty(): boolean {
    return Atomics.load(this.#image.memory.fields, IS_DIRTY) !== 0;
  }

  #locked<T>(act: () => T): T | number {
    return this.#image.tables.hold(() => (this.#order.state === 0 ? act() : EIO));
  }

  /** New refcount blocks, which have to be on stable storage before the refcount table points to them. */
  #putBlocks(): number {
    const blocks = this.#locked(() => this.#copyBlocks());
    if (typeof blocks === 'number') return blocks;
    const errno = this.#order.storage.flush();
    return errno === 0 ? this.#locked(() => this.#writeBlocks(blocks)) : errno;
  }

  #copyBlocks(): number | BlockCopies {
    const { file } = this.#image;
    if (!file.hasBlocks) return 0;
    this.#willWriteCounts();
    const errno = this.#order.writeCounts();
    return errno === 0 ? file.copyBlocks() : errno;
  }

  #writeBlocks(blocks: BlockCopies): number {
    const { file } = this.#image;
    if (!file.isNewer(blocks)) return 0;
    // Entries that rely on the table wait for a sync of it, whoever writes them.
    this.#order.willPoint();
    return file.writeBlocks(blocks);
  }

  /** Nobody else is to think that refcounts are on stable storage before they are. */
  #willWriteCounts(): void {
    if (this.#order.refcounts.cache.hasDirty()) this.#order.willPoint();
  }

  /** The tables; or what has to be on stable storage before the entries that wait may be written, and those copied. */
  #putOrCopy(): number | EntryCopies {
    this.#seal();
    const { file } = this.#image;
    if (!file.hasEntries || !this.#order.needsSync()) return this.#putAll();
    this.#willWriteCounts();
    const errno = this.#order.writeRefcounts();
    return errno === 0 ? file.copyEntries() : errno;
  }

  #seal(): void {
    this.#frees = this.#order.dropped.frees;
    this.#sealed = this.#order.dropped.seal();
  }

  /** Behind a sync: what others have changed since needs one of its own. */
  #putCopied(entries: EntryCopies): number {
    const { numbers } = this.#image.write;
    if (numbers[POINTED] === entries.pointed) numbers[POINTED_SYNCED] = entries.pointed;
    if (this.#order.needsSync()) return this.#image.file.writeCopies(entries);
    this.#seal();
    return this.#putAll();
  }

  #putAll(): number {
    const errno = this.#order.putTables();
    if (errno === 0) Atomics.store(this.#image.memory.fields, IS_DIRTY, 0);
    return errno;
  }
}
