import { spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { lockByteRead } from '#tsnbd/kernel/fd-calls.js';
import { deviceUsers, holderDevice, mountPoints, processesWithFileOpen, processStartTime } from '#tsnbd/kernel/proc.js';
import { makeTree, twoDevices } from './tree.js';

let root = '';

afterEach(() => {
  if (root !== '') rmSync(root, { recursive: true });
  root = '';
});

function users(device: string, files: Readonly<Record<string, string | undefined>>) {
  root = makeTree({ 'proc/self/ns/mnt': '-> mnt:[1]', ...twoDevices, ...files });
  return deviceUsers(device, root);
}

const mountOf = (number: string, point: string, rest = 'ext4 whatever') => `9 8 ${number} / ${point} rw - ${rest} rw\n`;

describe('a device above another', () => {
  it('has its name, what device mapper calls it, and all that it lies on', () => {
    root = makeTree({
      'sys/block/dm-0/dev': '253:0\n',
      'sys/block/dm-0/dm/name': 'vg-a b\n',
      'sys/block/dm-0/slaves/nbd0p1': undefined,
      'sys/block/dm-0/slaves/sda3': undefined,
      'sys/block/loop6/dev': '7:6\n',
      'proc/self/mountinfo': mountOf('43:0', '/first') + mountOf('43:1', '/second'),
    });
    expect(holderDevice({ holder: 'dm-0 (vg-a b)' }, root)).toEqual({
      name: 'dm-0',
      mapperName: 'vg-a b',
      lower: ['nbd0p1', 'sda3'],
    });
    expect(holderDevice({ holder: 'loop6' }, root)).toEqual({ name: 'loop6', mapperName: undefined, lower: [] });
    expect(holderDevice({ holder: 'btrfs 1234' }, root)).toBe(undefined);
    expect(mountPoints(root)).toEqual(['/first', '/second']);
  });
});

describe('users of a device', () => {
  it('are none where nothing uses it', () => {
    const mountinfo = mountOf('43:32', '/other') + mountOf('8:1', '/') + mountOf('43:100', '/mnt/43:0');
    expect(
      users('nbd0', { 'proc/self/mountinfo': mountinfo, 'proc/swaps': 'Filename\n/dev/sda2 partition\n' }),
    ).toEqual([]);
  });

  it('are mounts of the device and its partitions, whatever the source is called', () => {
    const mountinfo = mountOf('43:0', '/whole') + mountOf('43:10', '/mnt/ten\\040spaces') + mountOf('43:1', '/a');
    expect(users('nbd0', { 'proc/self/mountinfo': mountinfo + mountOf('43:1', '/a') })).toEqual([
      { kind: 'mount', device: 'nbd0', mountPoint: '/whole', fileSystem: 'ext4' },
      { kind: 'mount', device: 'nbd0p10', mountPoint: '/mnt/ten spaces', fileSystem: 'ext4' },
      { kind: 'mount', device: 'nbd0p1', mountPoint: '/a', fileSystem: 'ext4' },
    ]);
  });

  it('are mounts in the mount namespaces of other processes too', () => {
    const files = {
      'proc/self/mountinfo': mountOf('8:1', '/'),
      'proc/10/ns/mnt': '-> mnt:[1]',
      'proc/10/mountinfo': mountOf('43:0', '/never-read-twice'),
      'proc/11/ns/mnt': '-> mnt:[2]',
      'proc/11/mountinfo': mountOf('43:2', '/in-a-container'),
      'proc/12/mountinfo': mountOf('43:2', '/of-nobody-we-may-see'),
    };
    expect(users('nbd0', files)).toEqual([
      { kind: 'mount', device: 'nbd0p2', mountPoint: '/in-a-container', fileSystem: 'ext4' },
    ]);
  });

  it('are the devices above, by the name that says most, and members of a btrfs', () => {
    const files = {
      'sys/block/nbd0/holders/md0': undefined,
      'sys/block/nbd0/nbd0p2/holders/dm-3': undefined,
      'sys/block/dm-3/dm/name': 'vg-root\n',
      'sys/fs/btrfs/features': undefined,
      'sys/fs/btrfs/1b2c/devices/nbd0p1': undefined,
      'sys/fs/btrfs/1b2c/devices/nbd0p100': undefined,
    };
    expect(users('nbd0', files)).toEqual([
      { kind: 'holder', device: 'nbd0p1', holder: 'btrfs 1b2c' },
      { kind: 'holder', device: 'nbd0', holder: 'md0' },
      { kind: 'holder', device: 'nbd0p2', holder: 'dm-3 (vg-root)' },
    ]);
    rmSync(root, { recursive: true });
    expect(users('nbd1', files)).toEqual([]);
  });
});

it('a process has a start time of its own, and none when it is gone', async () => {
  const own = processStartTime(process.pid);
  const child = spawn('sleep', ['100']);
  const { pid = 0 } = child;
  expect(processStartTime(pid)).toBeGreaterThanOrEqual(own ?? Number.POSITIVE_INFINITY);
  child.kill();
  await new Promise((resolve) => child.on('close', resolve));
  expect(processStartTime(pid)).toBe(undefined);
});

it('finds who has a file open under any name, and who of them holds a lock', async () => {
  root = mkdtempSync(join(tmpdir(), 'tsnbd-proc-'));
  const path = join(root, 'image');
  const fd = openSync(path, 'w+');
  const { dev, ino } = statSync(path);
  const child = spawn('sh', ['-c', 'exec 3<"$0"; exec sleep 100', path], { stdio: 'ignore' });
  await expect.poll(() => processesWithFileOpen(dev, ino).map(({ command }) => command)).toContain('sleep');
  try {
    const found = () => processesWithFileOpen(dev, ino).map(({ pid, holdsLock }) => ({ pid, holdsLock }));
    expect(found()).toHaveLength(2);
    expect(found()).toContainEqual({ pid: child.pid, holdsLock: false });
    lockByteRead(fd, 100);
    expect(found()).toEqual([
      { pid: process.pid, holdsLock: true },
      { pid: child.pid, holdsLock: false },
    ]);
    closeSync(fd);
    expect(processesWithFileOpen(dev, ino)).toEqual([{ pid: child.pid, command: 'sleep', holdsLock: false }]);
  } finally {
    child.kill();
  }
});
