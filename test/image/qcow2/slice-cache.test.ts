import { expect, it } from 'vitest';
import { newCacheMemory, SliceCache, type SliceCopy } from '#tsnbd/image/qcow2/slice-cache.js';

const SLICE_BYTES = 16;

/** A cache of two slices at a time, and a file of slices. */
function open() {
  const cache = new SliceCache(newCacheMemory(100, SLICE_BYTES, 2 * SLICE_BYTES));
  const file: Record<number, number> = {};
  const write = (slice: number, bytes: Uint8Array, at: number) => {
    file[slice] = bytes[at] ?? -1;
    return 0;
  };
  /** As an image does: what is in the way is in the file before. */
  const set = (slice: number, value: number) => {
    let slot = cache.find(slice);
    if (slot < 0) {
      slot = cache.victim(slice);
      if (cache.isDirty(slot)) cache.writeDirty(write);
      cache.load(slot, slice, () => 0);
    }
    cache.change(slot, () => cache.bytes.fill(value, slot * SLICE_BYTES, (slot + 1) * SLICE_BYTES));
  };
  const writeCopies = (copies: readonly SliceCopy[]) => expect(cache.writeCopies(copies, write)).toBe(0);
  return { cache, file, set, write, writeCopies };
}

it('a copy is written as it was; what has changed since is still to be written', () => {
  const { cache, file, set, write, writeCopies } = open();
  set(1, 11);
  set(2, 21);
  const copies = cache.copyDirty();
  set(2, 22);
  writeCopies(copies);
  expect(file).toEqual({ 1: 11, 2: 21 });
  expect([1, 2].map((slice) => cache.isDirty(cache.find(slice)))).toEqual([false, true]);
  cache.writeDirty(write);
  expect(file).toEqual({ 1: 11, 2: 22 });
});

it('a copy is not written over a newer one, nor over what was written as a whole', () => {
  const { cache, file, set, write, writeCopies } = open();
  set(1, 11);
  const old = cache.copyDirty();
  set(1, 12);
  const newer = cache.copyDirty();
  set(1, 13);
  writeCopies(newer);
  writeCopies(old);
  expect(file).toEqual({ 1: 12 });
  expect(cache.isDirty(cache.find(1))).toBe(true);
  cache.writeDirty(write);
  writeCopies(newer);
  expect(file).toEqual({ 1: 13 });
});

it('nor is it where the slice has made way for another, or has come back since', () => {
  const { cache, file, set, writeCopies } = open();
  set(1, 11);
  const copies = cache.copyDirty();
  set(1, 12);
  for (const slice of [2, 3]) set(slice, slice);
  expect(cache.find(1)).toBe(-1);
  writeCopies(copies);
  expect(file[1]).toBe(12);
  set(1, 13);
  writeCopies(copies);
  expect(file[1]).toBe(12);
});
