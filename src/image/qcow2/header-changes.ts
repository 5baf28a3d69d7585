import type { FileCalls } from '../file-calls.js';
import type { StableStorage } from '../stable-storage.js';
import { readZeroed, writeAll } from '../whole-calls.js';

/** Places in the header (qcow2.rst, 'Header'). */
const INCOMPATIBLE_LAST_BYTE = 79;
const CORRUPT_BIT = 2;
const AUTOCLEAR = 88;

/** What is written to the header of an image that is open; under the image's lock. Each answers 0 or a positive errno. */
export class HeaderChanges {
  readonly #fd: number;
  readonly #calls: FileCalls;
  readonly #storage: StableStorage;

  constructor(fd: number, calls: FileCalls, storage: StableStorage) {
    this.#fd = fd;
    this.#calls = calls;
    this.#storage = storage;
  }

  /** Of the autoclear bits only `kept` stay. */
  clearAutoclear(kept: number): number {
    const bits = new Uint8Array(8);
    bits[7] = kept;
    return this.write(AUTOCLEAR, bits);
  }

  setCorrupt(): number {
    const flags = new Uint8Array(1);
    const errno = readZeroed(this.#calls, this.#fd, INCOMPATIBLE_LAST_BYTE, 1, flags, 0);
    flags[0] = (flags[0] ?? 0) | CORRUPT_BIT;
    return errno === 0 ? this.write(INCOMPATIBLE_LAST_BYTE, flags) : errno;
  }

  /** Writes `bytes` to their place in the header; they are on stable storage then. */
  write(at: number, bytes: Uint8Array): number {
    const errno = writeAll(this.#calls, this.#fd, at, bytes.length, bytes, 0);
    return errno === 0 ? this.#storage.flush() : errno;
  }
}
