import { closeSync, fstatSync, openSync, rmSync, type Stats, statSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { afterEach, describe, expect, it } from 'vitest';
import { type FileCalls, fileCalls } from '#tsnbd/image/file-calls.js';
import { openImage } from '#tsnbd/image/open-image.js';
import { isRotational, zeroingAbility } from '#tsnbd/image/traits.js';
import { deviceNumberText } from '#tsnbd/kernel/proc-tables.js';
import { makeTree } from '../kernel-host/tree.js';
import { useTemporaryFolder } from './temporary-folder.js';

const { EOPNOTSUPP } = constants.errno;
const inFolder = useTemporaryFolder();
let root = '';
afterEach(() => {
  if (root !== '') rmSync(root, { recursive: true });
  root = '';
});

/** /sys with the disk sda and its partition, by the numbers that they are to have. */
function disks(disk: string, partition: string, queue: Readonly<Record<string, string>>): string {
  const settings = Object.entries(queue).map(([name, text]) => [`sys/devices/sda/queue/${name}`, text]);
  return makeTree({
    ...Object.fromEntries(settings),
    'sys/devices/sda/sda1/partition': '1\n',
    [`sys/dev/block/${disk}`]: '-> ../../devices/sda',
    [`sys/dev/block/${partition}`]: '-> ../../devices/sda/sda1',
  });
}

describe('a file lies on a disk that turns', () => {
  it.each([
    ['1', true],
    ['0', false],
  ])('if its queue says %s', (text, expected) => {
    const path = inFolder('disk.raw');
    writeFileSync(path, 'x');
    const number = deviceNumberText(statSync(path).dev);
    root = disks(number, '999:1', { rotational: `${text}\n` });
    expect(isRotational(path, root)).toBe(expected);
    rmSync(root, { recursive: true });
    root = disks('999:1', number, { rotational: `${text}\n` });
    expect(isRotational(path, root)).toBe(expected);
  });

  it('not if nothing is known of it', () => {
    const path = inFolder('disk.raw');
    expect(isRotational(path)).toBe(false);
    writeFileSync(path, 'x');
    root = disks('999:0', '999:1', { rotational: '1\n' });
    expect(isRotational(path, root)).toBe(false);
  });
});

describe('what can be zeroed without writing zeroes', () => {
  function ability(fileBytes: number, calls: Partial<FileCalls> = {}) {
    const path = inFolder('disk.raw');
    writeFileSync(path, Buffer.alloc(fileBytes, 0x55));
    const fd = openSync(path, 'r+');
    try {
      const before = fstatSync(fd);
      const found = zeroingAbility({ fd, stat: before, fileBytes }, '', { ...fileCalls, ...calls });
      const after = fstatSync(fd);
      expect([after.size, after.blocks]).toEqual([before.size, before.blocks]);
      return found;
    } finally {
      closeSync(fd);
    }
  }

  it.each([1, 4096, 100_000])('is tried out on a file of %i bytes, which stays as it is', (fileBytes) => {
    const ranges: number[][] = [];
    const fallocate: FileCalls['fallocate'] = (...call) => {
      ranges.push(call.slice(2));
      return fileCalls.fallocate(...call);
    };
    expect(ability(fileBytes, { fallocate })).toEqual({ punches: true, slowZeroRange: false, zeroBlockBytes: 1 });
    expect(ranges).toHaveLength(1);
    expect(ranges[0]?.[0]).toBeGreaterThanOrEqual(fileBytes);
  });

  it('is nothing where the file system cannot', () => {
    expect(ability(4096, { fallocate: () => -EOPNOTSUPP })).toEqual({
      punches: false,
      slowZeroRange: false,
      zeroBlockBytes: 1,
    });
  });

  it.each([
    [{ write_zeroes_max_bytes: '4294966784\n', logical_block_size: '512\n' }, true, 512],
    [{ write_zeroes_max_bytes: '0\n', logical_block_size: '4096\n' }, false, 4096],
    [{}, false, 4096],
  ])('is told by the queue of a block device (%j)', (queue, punches, zeroBlockBytes) => {
    const disk = { isBlockDevice: () => true, rdev: 0x0801 } as Stats;
    root = disks('8:0', '8:1', queue);
    const calls = { ...fileCalls, fallocate: () => -EOPNOTSUPP };
    expect(zeroingAbility({ fd: -1, stat: disk, fileBytes: 512 }, root, calls)).toEqual({
      punches,
      slowZeroRange: !punches,
      zeroBlockBytes,
    });
  });
});

describe('the traits of an opened image', () => {
  it.each([
    [{ readOnly: false }, { fastZero: true, trim: true }],
    [
      { readOnly: false, discard: 'ignore' as const },
      { fastZero: true, trim: false },
    ],
    [{ readOnly: true }, { fastZero: false, trim: false }],
  ])('with %j', (options, expected) => {
    const path = inFolder('disk.raw');
    writeFileSync(path, Buffer.alloc(4096, 1));
    const opened = openImage(path, options);
    expect(opened.traits).toMatchObject(expected);
    expect(opened.traits.rotational).toBe(isRotational(path));
    opened.close();
  });
});
