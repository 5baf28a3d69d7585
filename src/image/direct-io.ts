import { constants } from 'node:os';
import { invariant } from '../base/invariant.js';
import { alignedMemory, forget, PAGE_ALIGNMENT_BYTES } from '../kernel/memory.js';
import type { BegunSync } from './begun-sync.js';
import { type FileCalls, fileCalls } from './file-calls.js';
import { RangeLock } from './range-lock.js';
import type { SharedFields } from './shared-layout.js';

const { EIO } = constants.errno;

/** An image's file, open a second time for reads and writes past the page cache (O_DIRECT). */
export interface DirectFile {
  readonly fd: number;
  /** What its offsets and lengths must be multiples of: a power of two, at least 512. */
  readonly blockBytes: number;
}

/** What direct calls need to know of the image that they are on. */
export interface DirectHandle {
  readonly direct: DirectFile;
  readonly fileBytes: number;
  readonly shared: SharedFields;
}

/** Of memory: enough for every disk. */
export const MEMORY_ALIGNMENT_BYTES = 4096;
/** A longer read or write takes several. */
export const DIRECT_BUFFER_BYTES = 1_048_576;

/**
 * The calls on a file whose reads and writes (on fds opened O_DIRECT) must be whole blocks from aligned memory. All data goes
 * through a buffer of the worker's own; a part of a block is read, changed and written back while no other worker changes
 * the block.
 */
export class DirectCalls implements FileCalls {
  readonly #blockBytes: number;
  readonly #fileBytes: number;
  readonly #lock: RangeLock;
  readonly #calls: FileCalls;
  readonly #buffer = alignedMemory(DIRECT_BUFFER_BYTES, PAGE_ALIGNMENT_BYTES);

  constructor({ direct, fileBytes, shared }: DirectHandle, calls: FileCalls = fileCalls) {
    const { blockBytes } = direct;
    invariant(DIRECT_BUFFER_BYTES % blockBytes === 0, 'the buffer of direct I/O holds whole blocks');
    this.#blockBytes = blockBytes;
    this.#fileBytes = fileBytes;
    this.#lock = new RangeLock(shared);
    this.#calls = calls;
  }

  read(fd: number, target: Uint8Array, at: number, length: number, offsetBytes: number): number {
    const skip = offsetBytes % this.#blockBytes;
    const wanted = Math.ceil((skip + length) / this.#blockBytes) * this.#blockBytes;
    const result = this.#calls.read(fd, this.#buffer, 0, Math.min(wanted, DIRECT_BUFFER_BYTES), offsetBytes - skip);
    if (result < 0) return result;
    const gotBytes = Math.max(0, Math.min(result - skip, length));
    target.set(this.#buffer.subarray(skip, skip + gotBytes), at);
    return gotBytes;
  }

  write(fd: number, source: Uint8Array, at: number, length: number, offsetBytes: number): number {
    const skip = offsetBytes % this.#blockBytes;
    if (skip !== 0 || length < this.#blockBytes) {
      const partBytes = Math.min(this.#blockBytes - skip, length);
      return this.#writePart(fd, source.subarray(at, at + partBytes), offsetBytes - skip, skip);
    }
    const wholeBytes = Math.min(length - (length % this.#blockBytes), DIRECT_BUFFER_BYTES);
    this.#buffer.set(source.subarray(at, at + wholeBytes));
    this.#lock.share(offsetBytes, wholeBytes);
    try {
      return this.#calls.write(fd, this.#buffer, 0, wholeBytes, offsetBytes);
    } finally {
      this.#lock.release();
    }
  }

  /** A hole that is punched into a block between the reading of it and the writing must not be filled again. */
  fallocate(fd: number, mode: number, offsetBytes: number, length: number): number {
    this.#lock.share(offsetBytes, length);
    try {
      return this.#calls.fallocate(fd, mode, offsetBytes, length);
    } finally {
      this.#lock.release();
    }
  }

  seek(fd: number, offsetBytes: number, what: number): number {
    return this.#calls.seek(fd, offsetBytes, what);
  }

  /** The page cache is not read. */
  willNeed(): number {
    return 0;
  }

  /** What a pipe would hold is the page cache. */
  intoPipe(): number {
    return 0;
  }

  truncate(fd: number, bytes: number): number {
    return this.#calls.truncate(fd, bytes);
  }

  sync(fd: number): number {
    return this.#calls.sync(fd);
  }

  openBegunSync(fds: readonly number[]): BegunSync | undefined {
    return this.#calls.openBegunSync(fds);
  }

  reopen(fd: number, flags: number): number {
    return this.#calls.reopen(fd, flags);
  }

  close(fd: number): number {
    return this.#calls.close(fd);
  }

  relax(): void {
    forget(this.#buffer);
  }

  #writePart(fd: number, part: Uint8Array, blockOffsetBytes: number, skip: number): number {
    this.#lock.takeAlone(blockOffsetBytes, this.#blockBytes);
    try {
      const errno = this.#readBlock(fd, blockOffsetBytes);
      if (errno !== 0) return -errno;
      this.#buffer.set(part, skip);
      const result = this.#calls.write(fd, this.#buffer, 0, this.#blockBytes, blockOffsetBytes);
      return result < 0 ? result : Math.max(0, Math.min(result - skip, part.length));
    } finally {
      this.#lock.release();
    }
  }

  /** Of a block that the file ends in, or never had, the rest is zeroes. Answers 0 or a positive errno. */
  #readBlock(fd: number, blockOffsetBytes: number): number {
    const result = this.#calls.read(fd, this.#buffer, 0, this.#blockBytes, blockOffsetBytes);
    if (result < 0) return -result;
    if (result < this.#blockBytes && blockOffsetBytes + result < this.#fileBytes) return EIO; // somebody cut it
    this.#buffer.fill(0, result, this.#blockBytes);
    return 0;
  }
}
