import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EXPECTED_BYTES_MAX, ExpectedReads } from '#tsnbd/image/expected-reads.js';

const FILE_BYTES = 1_000_100;
const READS_MAX = 64;
const content = Buffer.alloc(FILE_BYTES);
for (let at = 0; at + 4 <= FILE_BYTES; at += 4) content.writeUInt32LE(at, at);
const target = Buffer.alloc(400_032);
let folder: string;
let fd: number;
let reads: ExpectedReads;

function on(blockBytes: number): ExpectedReads {
  const made = ExpectedReads.on({ fd, blockBytes });
  if (made === undefined) throw new Error('this kernel has no io_uring');
  return made;
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-expected-'));
  writeFileSync(join(folder, 'file'), content);
  fd = openSync(join(folder, 'file'), 'r+');
  reads = on(1);
});
afterEach(() => {
  reads.close();
  closeSync(fd);
  rmSync(folder, { recursive: true });
});

/** Whether the read can be taken; then its bytes must be the file's. */
function takes(offsetBytes: number, length: number): boolean {
  target.fill(0xee);
  if (!reads.take(offsetBytes, length, target, 16)) return false;
  expect(target.subarray(16, 16 + length).equals(content.subarray(offsetBytes, offsetBytes + length))).toBe(true);
  expect(target[15]).toBe(0xee);
  expect(target[16 + length]).toBe(0xee);
  return true;
}

describe.each([1, 512, 4_096])('reads of a file of blocks of %i bytes', (blockBytes) => {
  beforeEach(() => {
    reads.close();
    reads = on(blockBytes);
  });

  test('are taken in the order in which they were announced, wherever they begin and end', () => {
    for (let round = 0; round < 10; round += 1) {
      const ranges = Array.from({ length: READS_MAX }, (_, index) => ({
        offset: (index * 7_919 + round * 31) % 900_000,
        length: 1 + ((index * 1_021 + round) % EXPECTED_BYTES_MAX),
      }));
      for (const { offset, length } of ranges) expect(reads.expect(offset, length)).toBe(true);
      expect(reads.expect(0, 512)).toBe(false);
      reads.start();
      for (const { offset, length } of ranges) expect(takes(offset, length)).toBe(true);
    }
  });
});

describe('reads past the page cache', () => {
  test('are announced up to a mebibyte, as many as there is memory for, and taken all around it', () => {
    reads.close();
    reads = on(4_096);
    const ahead: [number, number][] = [];
    let full = 0;
    for (let n = 0; n < 500; n += 1) {
      const offset = (n * 7_919) % 500_000;
      const length = 1 + ((n * 104_729) % 400_000);
      while (!reads.expect(offset, length)) {
        full += 1;
        expect(takes(...(ahead.shift() ?? [0, 0]))).toBe(true);
      }
      ahead.push([offset, length]);
      if (n % 3 === 0) reads.start();
    }
    expect(full).toBeGreaterThan(100);
    for (const one of ahead) expect(takes(...one)).toBe(true);
    expect(reads.isEmpty).toBe(true);
  });
});

describe('a read', () => {
  test('that is taken before it was started is waited for', () => {
    reads.expect(4_096, 8_192);
    expect(takes(4_096, 8_192)).toBe(true);
    expect(takes(4_096, 8_192)).toBe(false);
  });

  test('that was not announced is not to be had, and the rest is forgotten', () => {
    for (const offset of [0, 4_096, 8_192]) reads.expect(offset, 4_096);
    expect(takes(4_096, 4_096)).toBe(false);
    expect(takes(0, 4_096)).toBe(false);
    expect(reads.start()).toBe(true);
  });

  test('of other lengths than the announced one is another read', () => {
    reads.expect(0, 4_096);
    expect(takes(0, 512)).toBe(false);
    expect(takes(0, 4_096)).toBe(false);
  });

  test('longer than any that is announced leaves the others in their turn', () => {
    reads.expect(0, 4_096);
    for (const length of [EXPECTED_BYTES_MAX + 1, EXPECTED_BYTES_MAX + 10_000]) {
      expect(reads.expect(0, length)).toBe(false);
      expect(reads.take(0, length, target, 0)).toBe(false);
    }
    expect(takes(0, 4_096)).toBe(true);
  });

  test('that was done in another way is for nobody, and the others stay in their turn', () => {
    for (const offset of [0, 4_096, 8_192]) reads.expect(offset, 4_096, offset + 1);
    reads.forget(4_097, 4_096); // not the first
    reads.forget(1, 4_096);
    expect(reads.take(0, 4_096, target, 16, 4_097)).toBe(false); // it has moved
    expect(reads.take(8_192, 4_096, target, 16, 8_193)).toBe(true);
    expect(reads.isEmpty).toBe(true);
  });

  test('beyond the end of the file is left to a read that can tell of it', () => {
    reads.expect(FILE_BYTES - 100, 200);
    expect(takes(FILE_BYTES - 100, 200)).toBe(false);
  });

  test('never shows what was there before a change that it overlaps', () => {
    reads.expect(0, 4_096);
    reads.expect(8_192, 4_096);
    reads.start();
    reads.forgetOverlapping(12_288, 512);
    expect(takes(0, 4_096)).toBe(true);
    reads.forgetOverlapping(12_287, 1);
    writeSync(fd, 'changed', 12_287);
    expect(reads.take(8_192, 4_096, target, 0)).toBe(false);
  });

  test('is right after the memory was given back', () => {
    reads.expect(0, 4_096);
    reads.relax(); // nothing: a read is on its way
    expect(takes(0, 4_096)).toBe(true);
    reads.relax();
    reads.expect(512, 4_096);
    expect(takes(512, 4_096)).toBe(true);
  });
});
