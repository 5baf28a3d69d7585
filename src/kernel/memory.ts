import { invariant } from '../base/invariant.js';
import { libc, mapMemory } from './libc.js';
import { MADV_DONTNEED } from './libc-abi.js';

/** What `forget` works in: the largest page size that machines of ours have. */
export const PAGE_ALIGNMENT_BYTES = 65_536;

/** Memory whose address is a multiple of `alignmentBytes`, of undefined content. It stays where it is. */
export function alignedMemory(lengthBytes: number, alignmentBytes: number): Buffer {
  const memory = Buffer.allocUnsafeSlow(lengthBytes + alignmentBytes);
  const beyond = libc.addressOf(memory) % alignmentBytes;
  const at = beyond === 0 ? 0 : alignmentBytes - beyond;
  return memory.subarray(at, at + lengthBytes);
}

/**
 * Gives the memory back to the system; it stays usable, and holds zeroes. `memory` begins at a page (alignedMemory with
 * PAGE_ALIGNMENT_BYTES) and is a multiple of PAGE_ALIGNMENT_BYTES long.
 */
export function forget(memory: Uint8Array): void {
  invariant(memory.length % PAGE_ALIGNMENT_BYTES === 0, 'whole pages are given back');
  const result = libc.madvise(memory, memory.length, MADV_DONTNEED);
  invariant(result === 0, `memory of whole pages can be given back (${-result})`);
}

/** Where in memory `bytes` begin; they stay there. */
export function addressOf(bytes: Uint8Array): number {
  return libc.addressOf(bytes);
}

/**
 * Memory that the kernel may write to at any time: it stays until `freeMemory`, whatever becomes of the thread. Absent where
 * there is none.
 */
export function keptMemory(lengthBytes: number): Buffer | undefined {
  const memory = mapMemory(lengthBytes);
  return typeof memory === 'number' ? undefined : Buffer.from(memory.buffer, memory.byteOffset, memory.length);
}

/** Nobody may hold a view of it that is still used. */
export function freeMemory(memory: Uint8Array): void {
  libc.munmap(memory);
}

/** Bytes whose address C is told: a number takes a fraction of the time of a byte array. The address is asked for when it is needed first. */
export class PlacedBytes {
  readonly view: DataView;
  readonly #bytes: Buffer;
  #address = 0;

  constructor(lengthBytes: number) {
    // Short arrays of other kinds lie where V8 may move them.
    this.#bytes = Buffer.allocUnsafeSlow(lengthBytes);
    this.view = new DataView(this.#bytes.buffer);
  }

  get address(): number {
    if (this.#address === 0) this.#address = addressOf(this.#bytes);
    return this.#address;
  }
}

/** A number of 64 bits as C reads it, up to 2^53 − 1, without a BigInt. */
export function setU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}
