import { constants as fsConstants } from 'node:fs';
import { constants } from 'node:os';
import { PUNCH_HOLE, ZERO_RANGE } from '../kernel/fd-calls.js';
import { allocationStatus } from './allocation.js';
import { BegunWrites, type OnWritten } from './begun-writes.js';
import type { DirectFile } from './direct-io.js';
import { DurableFd } from './durable-fd.js';
import { type FileCalls, fileCalls } from './file-calls.js';
import { type DataPlace, type Extent, type Image, NOT_BEGUN, ZERO_FAST, ZERO_MAY_PUNCH } from './image.js';
import { isPunched } from './punched.js';
import { HAS_HOLES, type SharedFields } from './shared-layout.js';
import { StableStorage } from './stable-storage.js';
import { readZeroed, writeAll } from './whole-calls.js';

const { EINVAL, EIO, ENOSYS, EOPNOTSUPP } = constants.errno;

/** A raw image that the main thread opened; can be sent to workers. */
export interface RawHandle {
  readonly format: 'raw';
  /** The opener's; it stays open until every worker is gone. */
  readonly fd: number;
  /** The opener's too: by which reads and writes go past the page cache. */
  readonly direct?: DirectFile | undefined;
  /** The size of the file or block device when it was opened. */
  readonly fileBytes: number;
  /** `fileBytes`, rounded up to sectors of 512 bytes. */
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** ZERO_RANGE writes zeroes: of a block device that has no command for it. */
  readonly slowZeroRange?: boolean | undefined;
  /** What a block device can zero by itself, and give back: only whole blocks of so many bytes; a file takes any range. */
  readonly zeroBlockBytes?: number | undefined;
  readonly shared: SharedFields;
}

/** What is written where the storage below cannot zero by itself: a range of 4 GiB takes many writes, not much memory. */
const zeroes = new Uint8Array(1024 * 1024);

/** Who else writes to the file or the disk waits for the kernel meanwhile: it is asked for a piece at a time. */
const fallocatePieceBytes = 268_435_456;

/** The kernel reads ahead as much as its own readahead would, 128 KiB at least by default, however much it is told. */
const cachePieceBytes = 131_072;
/** More would fill the disk's queue and be waited for. */
const cacheBytesMax = 4_194_304;

/**
 * A file or block device whose bytes are the disk's. Every worker uses the opener's fd: reads and writes name their
 * offset. A last sector that the file has not all of reads as zeroes there, and grows with the first write into it.
 */
export class RawImage implements Image {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** A reader that has not read yet may see what is written later: the requests were there at the same time. */
  readonly lendsPages = false;
  readonly #fd: number;
  /** For reads and writes. */
  readonly #dataFd: number;
  /** Of them. */
  readonly #blockBytes: number;
  /** Where several writes at a time are worth it: past the page cache. */
  readonly #begun: BegunWrites | undefined;
  /** Absent when the image is read-only: to open it again would not be. */
  readonly #durable: DurableFd | undefined;
  readonly #fileBytes: number;
  readonly #slowZeroRange: boolean;
  readonly #zeroBlockBytes: number;
  readonly #shared: SharedFields;
  readonly #calls: FileCalls;
  readonly #storage: StableStorage;

  constructor(handle: RawHandle, calls: FileCalls = fileCalls) {
    const { fd, direct, readOnly } = handle;
    this.sizeBytes = handle.sizeBytes;
    this.readOnly = readOnly;
    this.#fd = fd;
    this.#dataFd = direct?.fd ?? fd;
    this.#begun = direct === undefined || readOnly ? undefined : new BegunWrites(direct, handle.shared);
    this.#blockBytes = direct?.blockBytes ?? 1;
    const durableFlags = fsConstants.O_RDWR | fsConstants.O_DSYNC | (direct === undefined ? 0 : fsConstants.O_DIRECT);
    this.#durable = readOnly ? undefined : new DurableFd(fd, durableFlags, calls);
    this.#fileBytes = handle.fileBytes;
    this.#slowZeroRange = handle.slowZeroRange ?? false;
    this.#zeroBlockBytes = handle.zeroBlockBytes ?? 1;
    this.#shared = handle.shared;
    this.#calls = calls;
    this.#storage = new StableStorage(
      handle.shared,
      () => 0 - calls.sync(fd),
      () => calls.openBegunSync([fd]),
    );
  }

  get mayHaveHoles(): boolean {
    return Atomics.load(this.#shared, HAS_HOLES) !== 0;
  }

  read(offsetBytes: number, length: number, target: Uint8Array, at: number): number {
    return readZeroed(this.#calls, this.#dataFd, offsetBytes, length, target, at, this.#fileBytes);
  }

  write(offsetBytes: number, length: number, source: Uint8Array, at: number, durable: boolean): number {
    if (this.#storage.failed) return EIO;
    if (durable) return this.#writeDurably(offsetBytes, length, source, at);
    return this.#writeAll(this.#dataFd, offsetBytes, length, source, at);
  }

  get beginsWrites(): boolean {
    return this.#begun !== undefined;
  }

  get isDirect(): boolean {
    return this.#blockBytes > 1;
  }

  beginWrite(offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    if (this.#begun === undefined || this.#storage.failed) return NOT_BEGUN;
    return this.#begun.begin(offsetBytes, length, source, at);
  }

  get begunWritesFd(): number {
    return this.#begun?.readableFd ?? -1;
  }

  takeWrites(waitFor: number, onWritten: OnWritten): void {
    this.#begun?.take(waitFor, onWritten);
  }

  zero(offsetBytes: number, length: number, ways: number, durable: boolean): number {
    if (this.#storage.failed) return EIO;
    Atomics.store(this.#shared, HAS_HOLES, 1);
    const first = this.#firstBlock(offsetBytes);
    const end = offsetBytes + length;
    const blocksEnd = this.#blocksEnd(end);
    if (first >= blocksEnd) {
      return (ways & ZERO_FAST) !== 0 ? EOPNOTSUPP : this.#finish(this.#writeZeroes(offsetBytes, length), durable);
    }
    // The parts of blocks last: where it cannot be done fast, nothing is changed.
    let errno = this.#zeroBlocks(first, blocksEnd - first, ways);
    if (errno === 0) errno = this.#writeZeroes(offsetBytes, first - offsetBytes);
    if (errno === 0) errno = this.#writeZeroes(blocksEnd, end - blocksEnd);
    return this.#finish(errno, durable);
  }

  trim(offsetBytes: number, length: number, durable: boolean): number {
    if (this.#storage.failed) return EIO;
    Atomics.store(this.#shared, HAS_HOLES, 1);
    const first = this.#firstBlock(offsetBytes);
    const errno = this.#fallocate(PUNCH_HOLE, first, this.#blocksEnd(offsetBytes + length) - first);
    return this.#finish(isUnsupported(errno) ? 0 : errno, durable);
  }

  status(offsetBytes: number, length: number, extent: Extent): number {
    return allocationStatus(this.#calls, this.#fd, this.#fileBytes, offsetBytes, length, extent);
  }

  findPlace(offsetBytes: number, _length: number, place: DataPlace): boolean {
    place.fd = this.#dataFd;
    place.blockBytes = this.#blockBytes;
    place.offsetBytes = offsetBytes;
    return true;
  }

  letGoPlaces(): void {}

  relax(): void {
    this.#begun?.relax();
    this.#calls.relax?.();
  }

  readIntoPipe(offsetBytes: number, length: number, pipeFd: number): number {
    let done = 0;
    while (done < length) {
      const moved = this.#calls.intoPipe(this.#dataFd, offsetBytes + done, length - done, pipeFd);
      if (moved <= 0) break;
      done += moved;
    }
    return done;
  }

  takeBackPages(): void {}

  cache(offsetBytes: number, length: number): number {
    const end = offsetBytes + Math.min(length, cacheBytesMax);
    for (let at = offsetBytes; at < end; at += cachePieceBytes) {
      const errno = 0 - this.#calls.willNeed(this.#fd, at, Math.min(cachePieceBytes, end - at));
      if (errno !== 0) return isUnsupported(errno) ? 0 : errno;
    }
    return 0;
  }

  flush(): number {
    return this.readOnly ? 0 : this.#storage.flush();
  }

  beginFlush(): boolean {
    return !this.readOnly && this.#storage.begin();
  }

  get begunFlushFd(): number {
    return this.#storage.begunFd;
  }

  get isFlushDone(): boolean {
    return this.#storage.isBegunDone;
  }

  finishFlush(): number {
    return this.#storage.finish();
  }

  /** The handle's fds are the opener's. */
  close(): void {
    this.#begun?.close();
    this.#durable?.close();
    this.#storage.close();
  }

  #finish(errno: number, durable: boolean): number {
    return errno === 0 && durable ? this.flush() : errno;
  }

  #writeDurably(offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    const fd = this.#durable?.fd ?? -1;
    if (fd < 0) return this.#finish(this.#writeAll(this.#dataFd, offsetBytes, length, source, at), true);
    return this.#storage.afterDurableWrite(this.#writeAll(fd, offsetBytes, length, source, at));
  }

  #writeAll(fd: number, offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    return writeAll(this.#calls, fd, offsetBytes, length, source, at);
  }

  #firstBlock(offsetBytes: number): number {
    return Math.ceil(offsetBytes / this.#zeroBlockBytes) * this.#zeroBlockBytes;
  }

  #blocksEnd(offsetBytes: number): number {
    return offsetBytes - (offsetBytes % this.#zeroBlockBytes);
  }

  #zeroBlocks(offsetBytes: number, length: number, ways: number): number {
    const fast = (ways & ZERO_FAST) !== 0;
    let errno = (ways & ZERO_MAY_PUNCH) !== 0 ? this.#fallocate(PUNCH_HOLE, offsetBytes, length) : EOPNOTSUPP;
    if (errno === 0 && !isPunched(this.#calls, this.#fd, offsetBytes, length)) errno = EOPNOTSUPP;
    if (isUnsupported(errno) && !(fast && this.#slowZeroRange)) {
      errno = this.#fallocate(ZERO_RANGE, offsetBytes, length);
    }
    if (isUnsupported(errno)) return fast ? EOPNOTSUPP : this.#writeZeroes(offsetBytes, length);
    return errno;
  }

  #writeZeroes(offsetBytes: number, length: number): number {
    for (let done = 0; done < length; done += zeroes.length) {
      const pieceBytes = Math.min(zeroes.length, length - done);
      const errno = this.#writeAll(this.#dataFd, offsetBytes + done, pieceBytes, zeroes, 0);
      if (errno !== 0) return errno;
    }
    return 0;
  }

  #fallocate(mode: number, offsetBytes: number, length: number): number {
    for (let done = 0; done < length; done += fallocatePieceBytes) {
      const pieceBytes = Math.min(fallocatePieceBytes, length - done);
      const errno = 0 - this.#calls.fallocate(this.#fd, mode, offsetBytes + done, pieceBytes);
      if (errno !== 0) return errno;
    }
    return 0;
  }
}

/** A block device whose blocks are larger than was told says EINVAL (block/fops.c: blkdev_fallocate). */
function isUnsupported(errno: number): boolean {
  return errno === EOPNOTSUPP || errno === ENOSYS || errno === EINVAL;
}
