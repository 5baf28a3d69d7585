import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  deviceNumberText,
  isStopped,
  isZombie,
  parseBlockFileSystems,
  parseMountinfo,
  parseStartTime,
  parseSwaps,
} from '#tsnbd/kernel/proc-tables.js';

describe('mountinfo', () => {
  it('gives device number, mount point, type and source of each line', () => {
    const text = [
      '36 35 43:1 /mnt1 /mnt/test1 rw,noatime master:1 - ext4 /dev/nbd0p1 rw,errors=continue',
      '37 35 0:52 / /mnt/b rw - btrfs /dev/nbd1 rw',
      '38 35 0:53 / /mnt/c rw shared:2 master:1 propagate_from:3 unbindable - tmpfs none rw',
      '',
    ].join('\n');
    expect(parseMountinfo(text)).toEqual([
      { deviceNumber: '43:1', mountPoint: '/mnt/test1', fileSystem: 'ext4', source: '/dev/nbd0p1' },
      { deviceNumber: '0:52', mountPoint: '/mnt/b', fileSystem: 'btrfs', source: '/dev/nbd1' },
      { deviceNumber: '0:53', mountPoint: '/mnt/c', fileSystem: 'tmpfs', source: 'none' },
    ]);
  });

  it('reads names with spaces, newlines, backslashes, dashes and digits behind a backslash', () => {
    const line = '1 2 43:0 / /mnt/a\\040b\\011c\\012d\\134e\\043\\134040 rw - ext4 /dev/x\\040-\\040y rw\n';
    expect(parseMountinfo(line)).toEqual([
      { deviceNumber: '43:0', mountPoint: '/mnt/a b\tc\nd\\e#\\040', fileSystem: 'ext4', source: '/dev/x - y' },
    ]);
    // A mount point that is called '-' stands before the optional fields.
    expect(parseMountinfo('1 2 43:0 / - rw - ext4 /dev/nbd0 rw')[0]?.source).toBe('/dev/nbd0');
  });

  it('reads an empty source', () => {
    expect(parseMountinfo('1 2 0:9 / /x rw -  tmpfs rw').length).toBe(0);
    expect(parseMountinfo('1 2 0:9 / /x rw - tmpfs  rw')[0]).toMatchObject({ fileSystem: 'tmpfs', source: '' });
  });

  it('leaves out what is cut, and throws at nothing', () => {
    const line = '36 35 43:1 / /mnt rw master:1 - ext4 /dev/nbd0p1 rw';
    for (let length = 0; length < line.indexOf('/dev/nbd0p1'); length += 1) {
      const [mount] = parseMountinfo(line.slice(0, length));
      expect(mount === undefined || mount.source === '').toBe(true);
    }
    fc.assert(fc.property(fc.string(), (text) => Array.isArray(parseMountinfo(text))));
  });
});

it('swaps: partitions and files, escaped names, without the heading', () => {
  const text =
    'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n' +
    '/dev/nbd0p2                             partition\t1048572\t\t0\t\t-2\n' +
    '/swap\\040file\\134                        file\t\t1048572\t\t0\t\t-3\n';
  expect(parseSwaps(text)).toEqual(['/dev/nbd0p2', '/swap file\\']);
  expect(parseSwaps('')).toEqual([]);
});

it('file systems on block devices are those without nodev', () => {
  expect([...parseBlockFileSystems('nodev\tsysfs\nnodev\ttmpfs\n\text4\n\tbtrfs\nnodev\tfuse\n\tfuseblk\n')]).toEqual([
    'ext4',
    'btrfs',
    'fuseblk',
  ]);
});

describe('the start time of a process', () => {
  const rest = (start: string) => `S 1 713 713 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 ${start} 0 0`;

  it.each(['node', 'a b', 'x) S 1 2', ')', '((', ') R 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9'])(
    'is found behind the name %j',
    (name) => {
      expect(parseStartTime(`713 (${name}) ${rest('198957')}`)).toBe(198_957);
    },
  );

  it('is absent when there is none', () => {
    for (const text of ['', '713', '713 (node)', `713 (node) ${rest('x')}`])
      expect(parseStartTime(text)).toBe(undefined);
  });
});

describe('a process that nobody has waited for', () => {
  const stat = (state: string, threads: number) =>
    `713 (a) Z) ${state} 1 713 713 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 ${threads} 0 198957 0 0`;

  it('is stopped by a signal, not by a tracer', () => {
    expect(['T', 't', 'S', 'Z'].map((state) => isStopped(stat(state, 1)))).toEqual([true, false, false, false]);
    for (const text of ['', '713', '713 (a) T', '713 (T ) S 1']) expect(isStopped(text)).toBe(false);
  });

  it('has ended when no thread of it is left', () => {
    expect(isZombie(stat('Z', 1))).toBe(true);
    expect(isZombie(stat('X', 0))).toBe(true);
    expect(isZombie(stat('Z', 2))).toBe(false);
    for (const state of ['S', 'R', 'D']) expect(isZombie(stat(state, 1))).toBe(false);
    for (const text of ['', '713', '713 (Z)', '713 (a) Z 1']) expect(isZombie(text)).toBe(false);
  });
});

it('device numbers of stat(2) are those of sysfs', () => {
  // makedev() of the C library: 8 bits of the minor, 12 of the major, then the minor's other 12.
  expect(deviceNumberText(0x2b00)).toBe('43:0');
  expect(deviceNumberText(0x2b21)).toBe('43:33');
  expect(deviceNumberText(0x1_0302)).toBe('259:2');
  expect(deviceNumberText(0xfff0_0000 + 0x2b00 + 0xff)).toBe(`43:${0xfffff}`);
});
