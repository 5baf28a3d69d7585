import { closeSync, fdatasyncSync, constants as fsConstants, openSync, readSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { fallocate, PUNCH_HOLE, ZERO_RANGE } from '../kernel/fd-calls.js';
import { errnoOf } from './errors.js';
import type { Image } from './image.js';
import { type SharedFields, SYNC_FAILED } from './shared-layout.js';

const { EINTR, EINVAL, EIO, ENOSYS, EOPNOTSUPP, ENOSPC } = constants.errno;

/** Zeroes are written in such pieces where the file system has no call for them. */
const ZEROES = Buffer.alloc(1_048_576);
/** A signal may interrupt a call; one that is interrupted without end is an error. */
const INTERRUPTIONS_MAX = 100;

/** What a worker needs to open a raw image that the main thread holds open and locked. */
export interface RawHandle {
  readonly format: 'raw';
  /** The opener's; it stays open until every worker is gone. */
  readonly fd: number;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly shared: SharedFields;
}

/** The calls of node:fs that a raw image is made of: a test gives calls that fail, for disks that do so only on request. */
export interface FileCalls {
  readonly read: typeof readSync;
  readonly write: typeof writeSync;
  readonly sync: (fd: number) => void;
}

const NODE_CALLS: FileCalls = { read: readSync, write: writeSync, sync: fdatasyncSync };

/**
 * Bytes as they are. Beyond the end of the file zeroes are read, up to the size that is a whole number of sectors, and a
 * write there grows the file.
 */
export class RawImage implements Image {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly #calls: FileCalls;
  readonly #shared: SharedFields;
  readonly #fd: number;

  /**
   * Opens the file once more: each open file hears of a lost write once, so that no worker's flush succeeds because
   * another's was told of the loss. The locks are the opener's and stay.
   */
  constructor(handle: RawHandle, calls: FileCalls = NODE_CALLS) {
    this.sizeBytes = handle.sizeBytes;
    this.readOnly = handle.readOnly;
    this.#shared = handle.shared;
    this.#calls = calls;
    this.#fd = openSync(`/proc/self/fd/${handle.fd}`, handle.readOnly ? fsConstants.O_RDONLY : fsConstants.O_RDWR);
  }

  read(offsetBytes: number, length: number, target: Uint8Array, at: number): number {
    let done = 0;
    let interruptions = 0;
    while (done < length) {
      try {
        const count = this.#calls.read(this.#fd, target, at + done, length - done, offsetBytes + done);
        if (count === 0) break;
        done += count;
      } catch (error) {
        const errno = errnoOf(error);
        if (errno !== EINTR || ++interruptions > INTERRUPTIONS_MAX) return errno;
      }
    }
    target.fill(0, at + done, at + length);
    return 0;
  }

  write(offsetBytes: number, length: number, source: Uint8Array, at: number, durable: boolean): number {
    if (this.#hasLostWrites()) return EIO;
    let done = 0;
    let interruptions = 0;
    while (done < length) {
      try {
        const count = this.#calls.write(this.#fd, source, at + done, length - done, offsetBytes + done);
        if (count === 0) return ENOSPC;
        done += count;
      } catch (error) {
        const errno = errnoOf(error);
        if (errno !== EINTR || ++interruptions > INTERRUPTIONS_MAX) return errno;
      }
    }
    return durable ? this.flush() : 0;
  }

  zero(offsetBytes: number, length: number, mayPunch: boolean, durable: boolean): number {
    if (this.#hasLostWrites()) return EIO;
    if (length === 0) return durable ? this.flush() : 0;
    let errno = mayPunch ? -fallocate(this.#fd, PUNCH_HOLE, offsetBytes, length) : EOPNOTSUPP;
    if (isUnsupported(errno)) errno = -fallocate(this.#fd, ZERO_RANGE, offsetBytes, length);
    if (isUnsupported(errno)) errno = this.#writeZeroes(offsetBytes, length);
    if (errno > 0) return errno;
    return durable ? this.flush() : 0;
  }

  trim(offsetBytes: number, length: number, durable: boolean): number {
    if (this.#hasLostWrites()) return EIO;
    const errno = length === 0 ? 0 : -fallocate(this.#fd, PUNCH_HOLE, offsetBytes, length);
    // To give storage back is a wish: where it cannot be done the data simply stays.
    if (errno > 0 && !isUnsupported(errno)) return errno;
    return durable ? this.flush() : 0;
  }

  flush(): number {
    if (this.#hasLostWrites()) return EIO;
    if (this.readOnly) return 0;
    try {
      this.#calls.sync(this.#fd);
    } catch (error) {
      Atomics.store(this.#shared, SYNC_FAILED, 1);
      return errnoOf(error);
    }
    // Another worker may have been told of a loss that this sync was to cover.
    return this.#hasLostWrites() ? EIO : 0;
  }

  close(): void {
    closeSync(this.#fd);
  }

  #writeZeroes(offsetBytes: number, length: number): number {
    for (let done = 0; done < length; done += ZEROES.length) {
      const errno = this.write(offsetBytes + done, Math.min(ZEROES.length, length - done), ZEROES, 0, false);
      if (errno !== 0) return errno;
    }
    return 0;
  }

  #hasLostWrites(): boolean {
    return Atomics.load(this.#shared, SYNC_FAILED) !== 0;
  }
}

/** What file systems and block devices answer to a kind of fallocate, or an alignment, that they do not have. */
function isUnsupported(errno: number): boolean {
  return errno === EOPNOTSUPP || errno === ENOSYS || errno === EINVAL;
}
