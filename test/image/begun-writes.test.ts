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
import { RangeLock } from '#tsnbd/image/range-lock.js';
import { newSharedFields, type SharedFields } from '#tsnbd/image/shared-layout.js';
import { seeded } from '../server/seeded.js';

const BLOCK = 512;
const FILE_BYTES = 4 * 2 ** 20;
const source = Buffer.alloc(BEGUN_BYTES_MAX + 64);
const errnos = new Int32Array(BEGUN_MAX);
const never = () => {
  throw new Error('nothing is to be done again');
};

let folder: string;
let fd: number;
let shared: SharedFields;
let writes: BegunWrites;

function on(fileFd: number): BegunWrites {
  shared = newSharedFields();
  const made = BegunWrites.on({ direct: { fd: fileFd, blockBytes: BLOCK }, fileBytes: FILE_BYTES, shared });
  if (made === undefined) throw new Error('this kernel has no io_uring');
  return made;
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
      let begun = 0;
      for (let index = 0; index < BEGUN_MAX; index += 1) {
        const offset = random(FILE_BYTES / BLOCK - 128) * BLOCK;
        const length = (1 + random(BEGUN_BYTES_MAX / BLOCK)) * BLOCK;
        source.fill(1 + random(255));
        if (!writes.begin(offset, length, source, 64)) continue;
        source.copy(expected, offset, 64, 64 + length);
        source.fill(0);
        begun += 1;
      }
      expect(begun).toBeGreaterThan(5);
      errnos.fill(-1);
      writes.finish(errnos, never);
      expect([...errnos.subarray(0, begun)]).toEqual(Array.from({ length: begun }, () => 0));
    }
    expect(readFileSync(join(folder, 'file')).equals(expected)).toBe(true);
  });

  test('are as many as there is room for', () => {
    for (let index = 0; index < BEGUN_MAX; index += 1) {
      expect(writes.begin(index * BLOCK, BLOCK, source, 0)).toBe(true);
    }
    expect(writes.begin(BEGUN_MAX * BLOCK, BLOCK, source, 0)).toBe(false);
    writes.finish(errnos, never);
    expect(writes.begin(BEGUN_MAX * BLOCK, BLOCK, source, 0)).toBe(true);
    writes.finish(errnos, never);
  });

  test('that fail are told apart from those that do not', () => {
    writes.close();
    const readable = openSync(join(folder, 'file'), fsConstants.O_RDONLY | fsConstants.O_DIRECT);
    writes = on(readable);
    writes.begin(0, BLOCK, source, 0);
    writes.begin(BLOCK, BLOCK, source, 0);
    writes.finish(errnos, never);
    expect([...errnos.subarray(0, 2)]).toEqual([constants.errno.EBADF, constants.errno.EBADF]);
    closeSync(readable);
  });

  test('keep a change of a part of a block waiting until they are finished, and then let it through first', () => {
    const lock = new RangeLock(shared);
    writes.begin(0, BLOCK, source, 0);
    expect(lock.isAwaited).toBe(false);
    writes.finish(errnos, never);
    lock.takeAlone(5 * BLOCK, BLOCK);
    lock.release();
    Atomics.add(shared, 7, 1); // as somebody who waits
    expect(writes.begin(0, BLOCK, source, 0)).toBe(false);
    Atomics.sub(shared, 7, 1);
    expect(writes.begin(0, BLOCK, source, 0)).toBe(true);
    writes.finish(errnos, never);
  });
});

test.each([
  ['of a part of a block', 0, 100],
  ['that begins within a block', 100, BLOCK],
  ['that is too long', 0, BEGUN_BYTES_MAX + BLOCK],
  ['that overlaps one that was begun', 1_048_576 + BLOCK, 2 * BLOCK],
])('a write %s is not begun', (_, offset, length) => {
  expect(writes.begin(1_048_576, 2 * BLOCK, source, 0)).toBe(true);
  expect(writes.begin(offset, length, source, 0)).toBe(false);
  writes.finish(errnos, never);
});
