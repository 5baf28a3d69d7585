import { expect } from 'vitest';
import { run } from './served.js';

export const BLOCK = 512;

/**
 * What a client has done to blocks: each is of one byte throughout. After a trim they may be zeroes besides. A flush that went on
 * beside changes began when so many had been made.
 */
export type Done =
  | { readonly kind: 'set'; readonly from: number; readonly values: Uint8Array; readonly mayBeZero: boolean }
  | { readonly kind: 'flush'; readonly begunAfter?: number };

/** What the blocks may hold when the machine stops: what they held when a flush was answered last, or anything since. */
export class PossibleDisk {
  readonly #now: Uint8Array;
  /** Of blocks that may hold something else: block · 256 + value, and with which change it was overwritten last. */
  readonly #others = new Map<number, number>();
  #changes = 0;

  constructor(disk: Uint8Array) {
    this.#now = Uint8Array.from(disk);
  }

  /** One that was not answered may have been done or not. */
  do(done: Done, isAnswered: boolean): void {
    if (done.kind === 'flush') {
      const { begunAfter = this.#changes } = done;
      for (const [other, change] of this.#others) if (isAnswered && change <= begunAfter) this.#others.delete(other);
      return;
    }
    this.#changes += 1;
    for (const [index, value] of done.values.entries()) {
      const block = done.from + index;
      this.#others.set(block * 256 + (this.#now[block] ?? 0), this.#changes);
      if (done.mayBeZero) this.#others.set(block * 256, this.#changes);
      this.#now[block] = value;
    }
  }

  /** What these blocks hold was told to be on stable storage. */
  hold(from: number, blocks: number): void {
    for (const other of this.#others.keys()) {
      const block = Math.floor(other / 256);
      if (block >= from && block < from + blocks) this.#others.delete(other);
    }
  }

  /** What blocks hold if nothing stops. */
  values(from: number, blocks: number): Uint8Array {
    return this.#now.slice(from, from + blocks);
  }

  has(block: number, value: number): boolean {
    return this.#now[block] === value || this.#others.has(block * 256 + value);
  }
}

/** Of each block. */
export function firstBytes(disk: Buffer): Uint8Array {
  return Uint8Array.from({ length: disk.length / BLOCK }, (_, block) => disk[block * BLOCK] ?? 0);
}

/** No errors in the tables, by QEMU; leaks may be. */
export async function expectNoErrors(path: string, when: string): Promise<void> {
  const { status, stdout, stderr } = await run('qemu-img', 'check', '-U', path);
  expect([when, [0, 3].includes(status) ? 'no errors' : stdout + stderr]).toEqual([when, 'no errors']);
}

/** Every block of a disk is whole, and one that may be so. */
export function expectPossible(disk: Buffer, possible: Pick<PossibleDisk, 'has'>, when: string): void {
  for (let block = 0; block < disk.length / BLOCK; block += 1) {
    const [begin, end] = [block * BLOCK, (block + 1) * BLOCK];
    const value = disk[begin] ?? 0;
    const isWhole = disk.compare(disk, begin, end - 1, begin + 1, end) === 0;
    if (!isWhole || !possible.has(block, value)) throw new Error(`${when}: block ${block} cannot be ${value}`);
  }
}
