import { fstatSync, readFileSync, truncateSync } from 'node:fs';
import { constants } from 'node:os';
import { describe, expect, it } from 'vitest';
import { type FileCalls, fileCalls } from '#tsnbd/image/file-calls.js';
import { ZERO_FAST, ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { RawImage } from '#tsnbd/image/raw.js';
import { PUNCH_HOLE, ZERO_RANGE } from '#tsnbd/kernel/fd-calls.js';
import { useRawWorkers } from './raw-workers.js';

const { EBADF, EDQUOT, EFBIG, EINTR, EINVAL, EIO, ENOSPC, EOPNOTSUPP } = constants.errno;
const workers = useRawWorkers();
const sector = new Uint8Array(512).fill(7);

describe('a last sector that the file has not all of', () => {
  it('reads as zeroes, and does not grow by that', () => {
    const { image, fd } = workers(700, {});
    const target = new Uint8Array(512).fill(1);
    expect(image.read(512, 512, target, 0)).toBe(0);
    expect([...target]).toEqual([...new Array(188).fill(0x55), ...new Array(324).fill(0)]);
    expect(image.read(1000, 24, target, 3)).toBe(0);
    expect([...target.subarray(3, 27)]).toEqual(new Array(24).fill(0));
    expect(fstatSync(fd).size).toBe(700);
  });

  it('grows with a write into it', () => {
    const { image, path } = workers(700, {});
    expect(image.write(512, 512, sector, 0, true)).toBe(0);
    const content = readFileSync(path);
    expect(content.length).toBe(1024);
    expect(content.subarray(512).equals(sector)).toBe(true);
  });

  it('reads as zeroes after it was zeroed, whether the file grew or not', () => {
    for (const ways of [ZERO_MAY_PUNCH, 0]) {
      const { image, fd } = workers(700, {});
      expect(image.zero(512, 512, ways, true)).toBe(0);
      const target = new Uint8Array(512).fill(1);
      expect(image.read(512, 512, target, 0)).toBe(0);
      expect(target.every((byte) => byte === 0)).toBe(true);
      expect([700, 1024]).toContain(fstatSync(fd).size);
    }
  });
});

it('a file that somebody cut answers EIO where its data was, not zeroes', () => {
  const { image, path } = workers(4096, {});
  truncateSync(path, 1000);
  const target = new Uint8Array(4096);
  expect(image.read(0, 1000, target, 0)).toBe(0);
  expect(image.read(0, 1001, target, 0)).toBe(EIO);
  expect(image.read(2048, 512, target, 0)).toBe(EIO);
});

describe('storage', () => {
  const MiB = 1 << 20;

  it('is given back by trim, and by zero unless it is to stay', () => {
    const { image, fd } = workers(4 * MiB, {});
    const blocks = () => fstatSync(fd).blocks;
    const full = blocks();
    expect(image.zero(0, MiB, 0, false)).toBe(0);
    expect(image.flush()).toBe(0);
    expect(blocks()).toBe(full);
    expect(image.zero(0, MiB, ZERO_MAY_PUNCH, false)).toBe(0);
    expect(blocks()).toBeLessThanOrEqual(full - MiB / 512);
    expect(image.trim(MiB, 2 * MiB, true)).toBe(0);
    expect(blocks()).toBeLessThanOrEqual(full - (3 * MiB) / 512);
    expect(fstatSync(fd).size).toBe(4 * MiB);
  });

  it('is written with zeroes, in bounded pieces, where the file system knows no other way', () => {
    const modes: number[] = [];
    const pieces: number[] = [];
    const { image, path } = workers(4 * MiB, {
      fallocate: (_fd, mode) => {
        modes.push(mode);
        return -EOPNOTSUPP;
      },
      write: (fd, source, at, length, offset) => {
        pieces.push(length);
        return fileCalls.write(fd, source, at, length, offset);
      },
    });
    expect(image.zero(100, 3 * MiB + 5, ZERO_MAY_PUNCH, false)).toBe(0);
    expect(modes).toEqual([PUNCH_HOLE, ZERO_RANGE]);
    expect(Math.max(...pieces)).toBeLessThanOrEqual(MiB);
    const content = readFileSync(path);
    expect(content.subarray(100, 3 * MiB + 105).every((byte) => byte === 0)).toBe(true);
    expect([content[99], content[3 * MiB + 105]]).toEqual([0x55, 0x55]);
    expect(image.zero(0, 512, 0, false)).toBe(0);
    expect(modes.slice(2)).toEqual([ZERO_RANGE]);
  });

  it('is zeroed fast or not at all, if that is asked for', () => {
    const modes: number[] = [];
    const known = new Set<number>();
    const { image, path } = workers(4096, {
      fallocate: (fd, mode, offset, length) => {
        modes.push(mode);
        return known.has(mode) ? fileCalls.fallocate(fd, mode, offset, length) : -EOPNOTSUPP;
      },
    });
    expect(image.zero(0, 4096, ZERO_FAST | ZERO_MAY_PUNCH, true)).toBe(EOPNOTSUPP);
    expect(image.zero(0, 4096, ZERO_FAST, false)).toBe(EOPNOTSUPP);
    expect(modes).toEqual([PUNCH_HOLE, ZERO_RANGE, ZERO_RANGE]);
    expect(readFileSync(path).every((byte) => byte === 0x55)).toBe(true);
    known.add(PUNCH_HOLE);
    expect(image.zero(0, 512, ZERO_FAST | ZERO_MAY_PUNCH, false)).toBe(0);
    expect(image.zero(512, 512, ZERO_FAST, false)).toBe(EOPNOTSUPP);
    expect(readFileSync(path).indexOf(0x55)).toBe(512);
  });

  it('that would be written with zeroes by the kernel is not zeroed fast, but else', () => {
    const modes: number[] = [];
    const { handle } = workers(4096, {});
    const fallocate = (_fd: number, mode: number) => {
      modes.push(mode);
      return mode === PUNCH_HOLE ? -EOPNOTSUPP : 0;
    };
    const image = new RawImage({ ...handle, slowZeroRange: true }, { ...fileCalls, fallocate });
    expect(image.zero(0, 512, ZERO_FAST | ZERO_MAY_PUNCH, false)).toBe(EOPNOTSUPP);
    expect(image.zero(0, 512, ZERO_FAST, false)).toBe(EOPNOTSUPP);
    expect(modes).toEqual([PUNCH_HOLE]);
    expect(image.zero(0, 512, 0, false)).toBe(0);
    expect(modes).toEqual([PUNCH_HOLE, ZERO_RANGE]);
  });

  it('stays as it is after a trim where it cannot be given back', () => {
    const { image, path } = workers(4096, { fallocate: () => -EOPNOTSUPP });
    expect(image.trim(0, 4096, true)).toBe(0);
    expect(readFileSync(path).every((byte) => byte === 0x55)).toBe(true);
  });

  it('is zeroed and trimmed piece by piece, for others write in between, over the longest range a client can name', () => {
    const ranges: number[][] = [];
    const longest = 2 ** 32 - 512;
    const { fd, handle } = workers(512, {});
    const calls: FileCalls = {
      ...fileCalls,
      fallocate: (...range) => {
        ranges.push(range);
        return 0;
      },
    };
    const image = new RawImage({ ...handle, fileBytes: 2 ** 40, sizeBytes: 2 ** 40 }, calls);
    expect(image.trim(2 ** 39, longest, false)).toBe(0);
    expect(image.zero(2 ** 39, longest, ZERO_MAY_PUNCH, false)).toBe(0);
    const pieceBytes = 2 ** 28;
    const once = Array.from({ length: 16 }, (_, n) => {
      return [fd, PUNCH_HOLE, 2 ** 39 + n * pieceBytes, n < 15 ? pieceBytes : pieceBytes - 512];
    });
    expect(ranges).toEqual([...once, ...once]);
  });
});

describe('a block device, which takes whole blocks only', () => {
  const BLOCK = 4096;
  const PIECE = 2 ** 28;

  /** Calls that answer as block/fops.c does (blkdev_fallocate), and what they were asked: modes with ranges, and writes. */
  function device(sizeBytes: number, supported: readonly number[] = [PUNCH_HOLE, ZERO_RANGE]) {
    const asked: (readonly [string, number, number])[] = [];
    const { handle } = workers(512, {});
    const calls: FileCalls = {
      ...fileCalls,
      fallocate: (_fd, mode, offset, length) => {
        asked.push([mode === PUNCH_HOLE ? 'punch' : 'zero', offset, length]);
        if (offset % BLOCK !== 0 || length % BLOCK !== 0) return -EINVAL;
        return supported.includes(mode) ? 0 : -EOPNOTSUPP;
      },
      write: (_fd, source, at, length, offset) => {
        asked.push(['write', offset, length]);
        expect(source.subarray(at, at + length).every((byte) => byte === 0)).toBe(true);
        return length;
      },
    };
    const image = new RawImage({ ...handle, fileBytes: sizeBytes, sizeBytes, zeroBlockBytes: BLOCK }, calls);
    return { image, asked };
  }

  it('is zeroed by itself but for the parts of blocks at both ends, which are written', () => {
    for (const [ways, how] of [
      [ZERO_MAY_PUNCH, 'punch'],
      [ZERO_MAY_PUNCH | ZERO_FAST, 'punch'],
      [0, 'zero'],
      [ZERO_FAST, 'zero'],
    ] as const) {
      const { image, asked } = device(2 ** 40);
      expect(image.zero(512, 3 * BLOCK, ways, false)).toBe(0);
      expect(image.zero(2 * BLOCK, BLOCK, ways, false)).toBe(0);
      expect(asked).toEqual([
        [how, BLOCK, 2 * BLOCK],
        ['write', 512, BLOCK - 512],
        ['write', 3 * BLOCK, 512],
        [how, 2 * BLOCK, BLOCK],
      ]);
    }
  });

  it('is zeroed in the same way over a long range that ends within a block', () => {
    const { image, asked } = device(2 ** 40);
    expect(image.zero(0, PIECE + BLOCK + 1, ZERO_MAY_PUNCH | ZERO_FAST, false)).toBe(0);
    expect(asked).toEqual([
      ['punch', 0, PIECE],
      ['punch', PIECE, BLOCK],
      ['write', PIECE + BLOCK, 1],
    ]);
  });

  it('is not zeroed fast, and not changed, where that is no faster than a write, or cannot be done', () => {
    const fast = ZERO_MAY_PUNCH | ZERO_FAST;
    const { image, asked } = device(2 ** 40);
    expect(image.zero(BLOCK + 1, BLOCK, fast, false)).toBe(EOPNOTSUPP);
    expect(image.zero(BLOCK, BLOCK - 1, fast, false)).toBe(EOPNOTSUPP);
    expect(asked).toEqual([]);
    const other = device(2 ** 40, []);
    expect(other.image.zero(1, 2 * PIECE, fast, false)).toBe(EOPNOTSUPP);
    expect(other.asked.map(([how]) => how)).toEqual(['punch', 'zero']);
  });

  it('is written where it cannot zero, and where there is no whole block', () => {
    const { image, asked } = device(2 ** 40, []);
    expect(image.zero(1, 2 * BLOCK, 0, false)).toBe(0);
    const written = asked.filter(([how]) => how === 'write');
    expect(written.reduce((bytes, [, , length]) => bytes + length, 0)).toBe(2 * BLOCK);
    asked.length = 0;
    expect(image.zero(BLOCK + 1, BLOCK, ZERO_MAY_PUNCH, false)).toBe(0);
    expect(asked).toEqual([['write', BLOCK + 1, BLOCK]]);
  });

  it('is given back by a trim but for the parts of blocks', () => {
    const { image, asked } = device(2 ** 40);
    expect(image.trim(512, 3 * BLOCK, false)).toBe(0);
    expect(image.trim(BLOCK + 1, BLOCK, true)).toBe(0);
    expect(asked).toEqual([['punch', BLOCK, 2 * BLOCK]]);
  });
});

describe('what the disk below answers', () => {
  it.each([
    ['it is full', ENOSPC],
    ['the quota is used up', EDQUOT],
    ['the file would be too large', EFBIG],
  ])('reaches the client when %s, and the next write is tried again', (_, errno) => {
    let full = true;
    const { image } = workers(4096, {
      write: (...call) => (full ? -errno : fileCalls.write(...call)),
      fallocate: (...call) => (full ? -errno : fileCalls.fallocate(...call)),
    });
    expect(image.write(0, 512, sector, 0, false)).toBe(errno);
    expect(image.write(0, 512, sector, 0, true)).toBe(errno);
    expect(image.zero(0, 512, ZERO_MAY_PUNCH, false)).toBe(errno);
    expect(image.trim(0, 512, false)).toBe(errno);
    full = false;
    expect(image.write(0, 512, sector, 0, true)).toBe(0);
    expect(image.zero(0, 512, ZERO_MAY_PUNCH, true)).toBe(0);
    expect(image.trim(0, 512, true)).toBe(0);
    expect(image.flush()).toBe(0);
  });

  it('reaches the client when it is broken, and the next write is tried again unless one was to be durable', () => {
    let broken = true;
    const { image } = workers(4096, { write: (...call) => (broken ? -EIO : fileCalls.write(...call)) });
    expect(image.write(0, 512, sector, 0, false)).toBe(EIO);
    broken = false;
    expect(image.write(0, 512, sector, 0, false)).toBe(0);
    expect(image.flush()).toBe(0);
    broken = true;
    expect(image.write(0, 512, sector, 0, true)).toBe(EIO);
    broken = false;
    expect(image.write(0, 512, sector, 0, false)).toBe(EIO);
  });

  it('is an errno, not an exception, also when the fd is no good', () => {
    const { handle } = workers(4096, {});
    const image = new RawImage({ ...handle, fd: 99_999 });
    expect(image.read(0, 512, new Uint8Array(512), 0)).toBe(EBADF);
    expect(image.write(0, 512, sector, 0, false)).toBe(EBADF);
    expect(image.zero(0, 512, ZERO_MAY_PUNCH, false)).toBe(EBADF);
    expect(image.trim(0, 512, false)).toBe(EBADF);
    expect(image.flush()).toBe(EBADF);
  });

  it('is tried again after a signal, but not for ever', () => {
    let calls = 0;
    const interrupt = () => {
      calls += 1;
      return -EINTR;
    };
    const { image } = workers(4096, { read: interrupt, write: interrupt });
    expect(image.read(0, 512, new Uint8Array(512), 0)).toBe(EINTR);
    expect(calls).toBe(100);
    expect(image.write(0, 512, sector, 0, false)).toBe(EINTR);
    expect(calls).toBe(200);
  });

  it('is EIO when a write writes nothing', () => {
    expect(workers(4096, { write: () => 0 }).image.write(0, 512, sector, 0, false)).toBe(EIO);
  });
});

it('a hint that a range will be read reaches the kernel in pieces that it takes, and not for ever', () => {
  const ranges: number[][] = [];
  let result = 0;
  const { image, fd } = workers(4096, {
    willNeed: (...range) => {
      ranges.push(range);
      return result;
    },
  });
  expect(image.cache(512, 200_000)).toBe(0);
  expect(ranges.splice(0)).toEqual([
    [fd, 512, 131_072],
    [fd, 131_584, 68_928],
  ]);
  expect(image.cache(0, 2 ** 40)).toBe(0);
  expect(ranges.splice(0)).toHaveLength(32);
  result = -EOPNOTSUPP;
  expect(image.cache(0, 2 ** 40)).toBe(0);
  result = -EIO;
  expect(image.cache(0, 2 ** 40)).toBe(EIO);
  expect(ranges).toHaveLength(2);
});

it('closing one worker leaves the file open for the others', () => {
  const { image, second } = workers(4096, {}, {});
  image.close();
  expect(second.read(0, 512, new Uint8Array(512), 0)).toBe(0);
});
