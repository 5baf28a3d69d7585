import { END_OF_FILE, RESERVE } from '../../kernel/fd-calls.js';
import type { FileCalls } from '../file-calls.js';
import { RESERVED_TO, type WriteMemory } from './memory.js';

/** Ahead of new clusters; a killed writer leaves so much behind the end of the file at most. */
const AHEAD_BYTES = 4 << 20;

/**
 * Storage that the file has ahead of new clusters, behind its end too: with it, each first write of a block takes a third less time
 * (ext4). All of it under the image's lock. That some could not be reserved, or is kept, is no error.
 */
export class ReservedStorage {
  readonly #numbers: WriteMemory['numbers'];
  readonly #fd: number;
  readonly #calls: FileCalls;

  constructor({ numbers }: WriteMemory, { fd, calls }: { readonly fd: number; readonly calls: FileCalls }) {
    this.#numbers = numbers;
    this.#fd = fd;
    this.#calls = calls;
  }

  /** New clusters lie there, which nothing was written to. */
  reserve(fromBytes: number, endBytes: number): void {
    const reservedTo = this.#numbers[RESERVED_TO] ?? 0;
    if (endBytes <= reservedTo) return;
    const from = Math.max(reservedTo, fromBytes);
    const to = endBytes + AHEAD_BYTES;
    this.#calls.fallocate(this.#fd, RESERVE, from, to - from);
    this.#numbers[RESERVED_TO] = to;
  }

  /** The file was made shorter, which has given back what was reserved. */
  forget(): void {
    this.#numbers[RESERVED_TO] = 0;
  }

  /** With no worker left: what is behind the end of the file goes back. */
  giveBack(): void {
    if (this.#numbers[RESERVED_TO] === 0) return;
    const fileBytes = this.#calls.seek(this.#fd, 0, END_OF_FILE);
    if (fileBytes >= 0) this.#calls.truncate(this.#fd, fileBytes);
    this.forget();
  }
}
