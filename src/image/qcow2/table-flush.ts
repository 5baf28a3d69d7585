import { constants } from 'node:os';
import type { StableStorage } from '../stable-storage.js';
import type { DroppedClusters } from './dropped-clusters.js';
import type { L2Tables } from './l2-tables.js';
import { IS_DIRTY, POINTED, POINTED_SYNCED, type Qcow2Memory, type WriteMemory } from './memory.js';
import type { Refcounts } from './refcounts.js';
import type { BlockCopies, EntryCopies, TableWrites } from './table-writes.js';

const { EIO } = constants.errno;

/** What a flush needs of the order of writes; all under the lock, but for `state`. What answers a number answers 0 or a positive errno. */
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
  /** The blocks, too, each behind a sync. */
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
 * is what stood there before it.
 */
export class TableFlush {
  /** After `put`: whether something may be freed once the tables are on stable storage, and what was dropped by then. */
  frees = false;
  sealed = 0;
  readonly #order: FlushDuties;
  readonly #image: FlushedImage;
  #blocks: BlockCopies | undefined;
  #entries: EntryCopies | undefined;

  constructor(order: FlushDuties, image: FlushedImage) {
    this.#order = order;
    this.#image = image;
  }

  /** Answers 0 with every table in the file as it is now, or later, to be made durable by a sync that begins then; or an errno. */
  put(): number {
    if (!this.#isDirty && !this.#order.dropped.frees) return 0;
    let errno = this.#image.file.hasBlocks ? this.#putBlocks() : 0;
    if (errno === 0) errno = this.#locked(() => this.#putOrCopy());
    const entries = this.#entries;
    this.#entries = undefined;
    if (errno !== 0 || entries === undefined) return errno;
    errno = this.#order.storage.flush();
    return errno === 0 ? this.#locked(() => this.#putCopied(entries)) : errno;
  }

  get #isDirty(): boolean {
    return Atomics.load(this.#image.memory.fields, IS_DIRTY) !== 0;
  }

  #locked(act: () => number): number {
    return this.#image.tables.hold(() => (this.#order.state === 0 ? act() : EIO));
  }

  /** New refcount blocks, which have to be on stable storage before the refcount table points to them. */
  #putBlocks(): number {
    let errno = this.#locked(() => this.#copyBlocks());
    const blocks = this.#blocks;
    this.#blocks = undefined;
    if (errno !== 0 || blocks === undefined) return errno;
    errno = this.#order.storage.flush();
    if (errno !== 0) return errno;
    return this.#locked(() => {
      // Entries that rely on the table wait for a sync of it, whoever writes them.
      this.#order.willPoint();
      return this.#image.file.writeBlocks(blocks);
    });
  }

  #copyBlocks(): number {
    if (!this.#image.file.hasBlocks) return 0;
    const errno = this.#writeAhead(() => this.#order.writeCounts());
    if (errno === 0) this.#blocks = this.#image.file.copyBlocks();
    return errno;
  }

  /** Refcounts, of which nobody else is to think that they are on stable storage. */
  #writeAhead(write: () => number): number {
    if (this.#order.refcounts.cache.hasDirty()) this.#order.willPoint();
    return write();
  }

  /** The tables, or what has to be on stable storage before the entries that wait may be written, and those copied. */
  #putOrCopy(): number {
    this.#seal();
    if (!this.#image.file.hasEntries || !this.#order.needsSync()) return this.#putAll();
    const errno = this.#writeAhead(() => this.#order.writeRefcounts());
    if (errno === 0) this.#entries = this.#image.file.copyEntries();
    return errno;
  }

  #seal(): void {
    this.frees = this.#order.dropped.frees;
    this.sealed = this.#order.dropped.seal();
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
