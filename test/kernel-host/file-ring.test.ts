import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FileRing } from '#tsnbd/kernel/file-ring.js';
import { addressOf, alignedMemory } from '#tsnbd/kernel/memory.js';
import { waitReadable } from '#tsnbd/kernel/socket-calls.js';

const PIECE_BYTES = 4_096;
const content = Buffer.alloc(64 * PIECE_BYTES);
for (let at = 0; at < content.length; at += 4) content.writeUInt32LE(at, at);
const folder = mkdtempSync(join(tmpdir(), 'tsnbd-ring-'));
let fd: number;

beforeAll(() => {
  writeFileSync(join(folder, 'file'), content);
  fd = openSync(join(folder, 'file'), 'r');
});
afterAll(() => {
  closeSync(fd);
  rmSync(folder, { recursive: true });
});

function open(entries: number): FileRing {
  const ring = FileRing.open(entries);
  if (ring === undefined) throw new Error('this kernel has no io_uring');
  return ring;
}

test('does many reads at once, each into its place, more often than it has entries', () => {
  const ring = open(8);
  const memory = alignedMemory(ring.entries * PIECE_BYTES, PIECE_BYTES);
  const address = addressOf(memory);
  const seen = new Set<number>();
  for (let round = 0; round < 20; round += 1) {
    const results = new Map<number, number>();
    const offsets = Array.from({ length: ring.entries }, (_, slot) => ((round * 13 + slot * 7) % 64) * PIECE_BYTES);
    offsets.forEach((offset, slot) => {
      ring.read(fd, offset, PIECE_BYTES, address + slot * PIECE_BYTES, slot);
    });
    expect(ring.submit(ring.entries)).toBe(0);
    expect(ring.isDone).toBe(true);
    ring.take((tag, result) => results.set(tag, result));
    expect(ring.isDone).toBe(false);
    expect(results).toEqual(new Map(offsets.map((_, slot) => [slot, PIECE_BYTES])));
    offsets.forEach((offset, slot) => {
      const got = memory.subarray(slot * PIECE_BYTES, (slot + 1) * PIECE_BYTES);
      expect(got.equals(content.subarray(offset, offset + PIECE_BYTES))).toBe(true);
      seen.add(offset);
    });
  }
  expect(seen.size).toBeGreaterThan(32);
  ring.close();
});

test('answers a short read at the end of the file, and −errno where it cannot be read', () => {
  const ring = open(8);
  const memory = alignedMemory(2 * PIECE_BYTES, PIECE_BYTES);
  const results = new Map<number, number>();
  ring.read(fd, content.length - 100, PIECE_BYTES, addressOf(memory), 7);
  ring.read(9_999, 0, PIECE_BYTES, addressOf(memory) + PIECE_BYTES, 4_000_000_000);
  expect(ring.submit(2)).toBe(0);
  ring.take((tag, result) => results.set(tag, result));
  expect(results).toEqual(
    new Map([
      [7, 100],
      [4_000_000_000, -constants.errno.EBADF],
    ]),
  );
  ring.close();
});

test('syncs a file beside its thread, and its descriptor is readable when that is done', () => {
  const ring = open(2);
  const written = openSync(join(folder, 'written'), 'w');
  writeFileSync(written, content);
  const results: number[] = [];
  for (const file of [written, 9_999]) {
    ring.sync(file, 5);
    expect(ring.submit(0)).toBe(0);
    expect(waitReadable(ring.readableFd, 10_000)).toBe(1);
    ring.take((tag, result) => results.push(tag, result));
    expect(waitReadable(ring.readableFd, 0)).toBe(0);
  }
  expect(results).toEqual([5, 0, 5, -constants.errno.EBADF]);
  closeSync(written);
  ring.close();
});
