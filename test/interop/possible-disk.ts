import { expect } from 'vitest';
import { run } from './served.js';

export const BLOCK = 512;

/** What a client has done to blocks: each is of one byte throughout. After a trim they may be zeroes besides. */
export type Done =
  | { readonly kind: 'set'; readonly from: number; readonly values: Uint8Array; readonly mayBeZero: boolean }
  | { readonly kind: 'flush' };

/** What the blocks may hold when the machine stops: what they held when a flush was answered last, or anything since. */
export class PossibleDisk {
  readonly #now: Uint8Array;
  /** Of blocks that may hold something else: block · 256 + value. */
  readonly #others = new Set<number>();

  constructor(disk: Uint8Array) {
    this.#now = Uint8Array.from(disk);
  }

  /** One that was not answered may have been done or not. */
  do(done: Done, isAnswered: boolean): void {
    if (done.kind === 'flush') {
      if (isAnswered) this.#others.clear();
      return;
    }
    for (const [index, value] of done.values.entries()) {
      const block = done.from + index;
      this.#others.add(block * 256 + (this.#now[block] ?? 0));
      if (done.mayBeZero) this.#others.add(block * 256);
      this.#now[block] = value;
    }
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
