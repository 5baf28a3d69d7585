import { constants } from 'node:os';
import { PUNCH_HOLE, ZERO_RANGE } from '../kernel/fd-calls.js';
import { type FileCalls, fileCalls } from './file-calls.js';
import type { Image } from './image.js';
import type { SharedFields } from './shared-layout.js';
import { StableStorage } from './stable-storage.js';

const { EINTR, EINVAL, EIO, ENOSYS, EOPNOTSUPP } = constants.errno;

/** A raw image that the main thread opened; can be sent to workers. */
export interface RawHandle {
  readonly format: 'raw';
  /** Nobody said that it is raw. */
  readonly guessed: boolean;
  /** The opener's; it stays open until every worker is gone. */
  readonly fd: number;
  /** The size of the file or block device when it was opened. */
  readonly fileBytes: number;
  /** `fileBytes`, rounded up to sectors of 512 bytes. */
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly shared: SharedFields;
}

/** What is written where the storage below cannot zero by itself: a range of 4 GiB takes many writes, not much memory. */
const zeroes = new Uint8Array(1024 * 1024);

/** A signal can interrupt a call on a network file system; one that never gets through is an error. */
const interruptionsMax = 100;

/**
 * A file or block device whose bytes are the disk's. Every worker uses the opener's fd: reads and writes name their
 * offset. A last sector that the file has not all of reads as zeroes there, and grows with the first write into it.
 */
export class RawImage implements Image {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly #fd: number;
  readonly #fileBytes: number;
  readonly #calls: FileCalls;
  readonly #storage: StableStorage;

  constructor(handle: RawHandle, calls: FileCalls = fileCalls) {
    this.sizeBytes = handle.sizeBytes;
    this.readOnly = handle.readOnly;
    this.#fd = handle.fd;
    this.#fileBytes = handle.fileBytes;
    this.#calls = calls;
    this.#storage = new StableStorage(handle.shared, () => 0 - calls.sync(handle.fd));
  }

  read(offsetBytes: number, length: number, target: Uint8Array, at: number): number {
    let interruptions = 0;
    for (let done = 0; done < length; ) {
      const result = this.#calls.read(this.#fd, target, at + done, length - done, offsetBytes + done);
      if (result === -EINTR && ++interruptions < interruptionsMax) continue;
      if (result < 0) return -result;
      if (result === 0) {
        // Somebody cut the file: zeroes in place of data would look like a disk that was wiped.
        if (offsetBytes + done < this.#fileBytes) return EIO;
        target.fill(0, at + done, at + length);
        return 0;
      }
      done += result;
    }
    return 0;
  }

  write(offsetBytes: number, length: number, source: Uint8Array, at: number, durable: boolean): number {
    if (this.#storage.failed) return EIO;
    return this.#finish(this.#writeAll(offsetBytes, length, source, at), durable);
  }

  zero(offsetBytes: number, length: number, mayPunch: boolean, durable: boolean): number {
    if (this.#storage.failed) return EIO;
    let errno = mayPunch ? this.#fallocate(PUNCH_HOLE, offsetBytes, length) : EOPNOTSUPP;
    if (isUnsupported(errno)) errno = this.#fallocate(ZERO_RANGE, offsetBytes, length);
    if (isUnsupported(errno)) errno = this.#writeZeroes(offsetBytes, length);
    return this.#finish(errno, durable);
  }

  trim(offsetBytes: number, length: number, durable: boolean): number {
    if (this.#storage.failed) return EIO;
    const errno = this.#fallocate(PUNCH_HOLE, offsetBytes, length);
    return this.#finish(isUnsupported(errno) ? 0 : errno, durable);
  }

  flush(): number {
    return this.readOnly ? 0 : this.#storage.flush();
  }

  /** The fd is the opener's. */
  close(): void {}

  #finish(errno: number, durable: boolean): number {
    return errno === 0 && durable ? this.flush() : errno;
  }

  #writeAll(offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    let interruptions = 0;
    for (let done = 0; done < length; ) {
      const result = this.#calls.write(this.#fd, source, at + done, length - done, offsetBytes + done);
      if (result === -EINTR && ++interruptions < interruptionsMax) continue;
      if (result < 0) return -result;
      if (result === 0) return EIO; // write(2) does not do this; going on could take for ever
      done += result;
    }
    return 0;
  }

  #writeZeroes(offsetBytes: number, length: number): number {
    for (let done = 0; done < length; done += zeroes.length) {
      const errno = this.#writeAll(offsetBytes + done, Math.min(zeroes.length, length - done), zeroes, 0);
      if (errno !== 0) return errno;
    }
    return 0;
  }

  #fallocate(mode: number, offsetBytes: number, length: number): number {
    return 0 - this.#calls.fallocate(this.#fd, mode, offsetBytes, length);
  }
}

/** A block device says EINVAL to ranges that are not aligned to its blocks (block/fops.c: blkdev_fallocate). */
function isUnsupported(errno: number): boolean {
  return errno === EOPNOTSUPP || errno === ENOSYS || errno === EINVAL;
}
