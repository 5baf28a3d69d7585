import {
  closeSync,
  constants as fsConstants,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BEGUN_BYTES_MAX, BEGUN_MAX, BegunWrites } from '#tsnbd/image/begun-writes.js';
import { IS_FULL, NOT_BEGUN } from '#tsnbd/image/image.js';
import { RangeLock } from '#tsnbd/image/range-lock.js';
import { newSharedFields, type SharedFields } from '#tsnbd/image/shared-layout.js';
import { waitReadable } from '#tsnbd/kernel/socket-calls.js';
import { seeded } from '../server/seeded.js';

const BLOCK = 512;
const FILE_BYTES = 4 * 2 ** 20;
const source = Buffer.alloc(BEGUN_BYTES_MAX + 64);
/** What was told, by ticket. */
const told = new Map<number, number>();
const tell = (ticket: number, errno: number) => {
  expect(told.has(ticket)).toBe(false);
  told.set(ticket, errno);
};
const finish = () => {
  told.clear();
  writes.take(BEGUN_MAX, tell);
};

let folder: string;
let fd: number;
let shared: SharedFields;
let writes: BegunWrites;

function on(fileFd: number): BegunWrites {
  shared = newSharedFields();
  return new BegunWrites({ fd: fileFd, blockBytes: BLOCK }, shared);
}

beforeEach(() => {
  folder = mkdtempSync('/var/tmp/tsnbd-begun-');
  writeFileSync(join(folder, 'file'), Buffer.alloc(FILE_BYTES));
  fd = openSync(join(folder, 'file'), fsConstants.O_RDWR | fsConstants.O_DIRECT);
  writes = on(fd);
});
afterEach(() => {
  writes.close();
  closeSync(fd);
  rmSync(folder, { recursive: true });
});

describe('writes that are begun', () => {
  test('are all there when they are finished, though their source is used again', () => {
    const random = seeded(7);
    const expected = Buffer.alloc(FILE_BYTES);
    for (let round = 0; round < 20; round += 1) {
      const tickets: number[] = [];
      for (let index = 0; index < BEGUN_MAX; index += 1) {
        const offset = random(FILE_BYTES / BLOCK - 2_048) * BLOCK;
        const length = (1 + random(200)) * BLOCK;
        source.fill(1 + random(255));
        const ticket = writes.begin(offset, length, source, 64);
        if (ticket < 0) continue;
        source.copy(expected, offset, 64, 64 + length);
        source.fill(0);
        tickets.push(ticket);
      }
      expect(tickets.length).toBeGreaterThan(3);
      finish();
      expect([...told].sort(([a], [b]) => a - b)).toEqual(tickets.sort((a, b) => a - b).map((ticket) => [ticket, 0]));
    }
    expect(readFileSync(join(folder, 'file')).equals(expected)).toBe(true);
  });

  test('are as many as there is room for, and one more once one is done', () => {
    const begin = (index: number) => writes.begin(index * BLOCK, BLOCK, source, 0);
    const tickets = Array.from({ length: BEGUN_MAX }, (_, index) => begin(index));
    expect(new Set(tickets).size).toBe(BEGUN_MAX);
    expect(begin(BEGUN_MAX)).toBe(IS_FULL);
    told.clear();
    writes.take(1, tell);
    const done = told.size;
    expect(done).toBeGreaterThan(0);
    const [next = -1] = told.keys();
    told.clear();
    expect(tickets).toContain(next);
    expect(begin(BEGUN_MAX)).toBeGreaterThanOrEqual(0);
    finish();
    expect(told.size).toBe(BEGUN_MAX - done + 1);
  });

  test('overlap none that is done', () => {
    expect(writes.begin(BLOCK, BLOCK, source, 0)).toBeGreaterThanOrEqual(0);
    expect(writes.begin(0, 4 * BLOCK, source, 0)).toBe(NOT_BEGUN);
    finish();
    expect(writes.begin(0, 4 * BLOCK, source, 0)).toBeGreaterThanOrEqual(0);
    finish();
  });

  test('of many sizes lie beside each other, whichever is done first', () => {
    const expected = Buffer.alloc(FILE_BYTES);
    let begun = 0;
    let ended = 0;
    const end = (_: number, errno: number) => {
      expect(errno).toBe(0);
      ended += 1;
    };
    for (let offset = 0; offset + 300 * 1024 <= FILE_BYTES; begun += 1) {
      const length = (1 + ((begun * 37) % 600)) * BLOCK;
      source.fill(1 + (begun % 255));
      while (writes.begin(offset, length, source, 0) === IS_FULL) writes.take(1, end);
      expected.fill(1 + (begun % 255), offset, offset + length);
      offset += length;
    }
    writes.take(BEGUN_MAX, end);
    expect(ended).toBe(begun);
    expect(readFileSync(join(folder, 'file')).equals(expected)).toBe(true);
  });

  test('are on their way once they are looked after, and told when they are done', async () => {
    const ticket = writes.begin(0, BLOCK, source, 0);
    told.clear();
    writes.take(0, tell);
    // A quick disk has it done by then, and nothing is left to wait for.
    if (told.size === 0) {
      expect(waitReadable(writes.readableFd, 10_000)).toBe(1);
      writes.take(0, tell);
    }
    expect([...told]).toEqual([[ticket, 0]]);
  });

  test('that fail are told apart from those that do not', () => {
    writes.close();
    const readable = openSync(join(folder, 'file'), fsConstants.O_RDONLY | fsConstants.O_DIRECT);
    writes = on(readable);
    const tickets = [writes.begin(0, BLOCK, source, 0), writes.begin(BLOCK, BLOCK, source, 0)];
    finish();
    expect([...told].sort()).toEqual(tickets.map((ticket) => [ticket, constants.errno.EBADF]));
    closeSync(readable);
  });

  test('keep a change of a part of a block waiting until they are done, and then let it through first', () => {
    const lock = new RangeLock(shared);
    writes.begin(0, BLOCK, source, 0);
    expect(lock.isAwaited).toBe(false);
    Atomics.add(shared, 7, 1); // as somebody who waits
    expect(writes.begin(BLOCK, BLOCK, source, 0)).toBe(NOT_BEGUN);
    Atomics.sub(shared, 7, 1);
    finish();
    lock.takeAlone(5 * BLOCK, BLOCK);
    lock.release();
    expect(writes.begin(0, BLOCK, source, 0)).toBeGreaterThanOrEqual(0);
    finish();
  });

  test('that were waited for keep nobody waiting, and are told of before the next is begun', () => {
    const lock = new RangeLock(shared);
    const tickets = [writes.begin(0, BLOCK, source, 0), writes.begin(BLOCK, BLOCK, source, 0)];
    expect(tickets.every((ticket) => ticket >= 0)).toBe(true);
    writes.settle();
    lock.takeAlone(0, BLOCK);
    lock.release();
    writes.settle();
    expect([writes.isEmpty, writes.begin(2 * BLOCK, BLOCK, source, 0)]).toEqual([false, IS_FULL]);
    finish();
    expect([...told.keys()].sort()).toEqual(tickets.sort());
    expect([writes.isEmpty, writes.begin(2 * BLOCK, BLOCK, source, 0) >= 0]).toEqual([true, true]);
    finish();
  });

  test('are over when it is closed, and keep nobody waiting then', () => {
    expect(writes.begin(0, BLOCK, source, 0)).toBeGreaterThanOrEqual(0);
    writes.close();
    const lock = new RangeLock(shared);
    lock.takeAlone(0, BLOCK);
    lock.release();
    writes = on(fd);
  });

  test('that were waited for are told of once, with their error, and others are waited for only if more are asked for', () => {
    writes.close();
    const readable = openSync(join(folder, 'file'), fsConstants.O_RDONLY | fsConstants.O_DIRECT);
    writes = on(readable);
    const ticket = writes.begin(0, BLOCK, source, 0);
    writes.settle();
    told.clear();
    writes.take(1, tell);
    expect([...told]).toEqual([[ticket, constants.errno.EBADF]]);
    finish();
    expect(told.size).toBe(0);
    closeSync(readable);
  });
});

test.each([
  ['of a part of a block', 0, 100],
  ['that begins within a block', 100, BLOCK],
  ['that is too long', 0, BEGUN_BYTES_MAX + BLOCK],
  ['that overlaps one that was begun', 1_048_576 + BLOCK, 2 * BLOCK],
])('a write %s is not begun', (_, offset, length) => {
  expect(writes.begin(1_048_576, 2 * BLOCK, source, 0)).toBeGreaterThanOrEqual(0);
  expect(writes.begin(offset, length, source, 0)).toBe(NOT_BEGUN);
  finish();
});
