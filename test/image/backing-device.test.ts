import { existsSync, readdirSync, rmSync, statSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { deviceLiesOn, imageLiesOn } from '#tsnbd/image/backing-device.js';
import { deviceNumberText } from '#tsnbd/kernel/proc-tables.js';
import { makeTree } from '../kernel-host/tree.js';

let root = '';
afterEach(() => {
  if (root !== '') rmSync(root, { recursive: true });
  root = '';
});

/** /sys with nbd0 and its partition, dm-0 on that, dm-1 on dm-0 and vda, and a partition of md0 on dm-1. */
function stack(): string {
  const devices: Readonly<Record<string, string>> = {
    '43:0': 'nbd0',
    '43:1': 'nbd0/nbd0p1',
    '43:32': 'nbd1',
    '254:0': 'vda',
    '253:0': 'dm-0',
    '253:1': 'dm-1',
    '9:0': 'md0',
    '259:0': 'md0/md0p1',
  };
  const slaves: readonly [string, string][] = [
    ['dm-0', 'nbd0/nbd0p1'],
    ['dm-1', 'vda'],
    ['dm-1', 'dm-0'],
    ['md0', 'dm-1'],
  ];
  const files: Record<string, string> = {
    'sys/devices/nbd0/nbd0p1/partition': '1\n',
    'sys/devices/md0/md0p1/partition': '1\n',
  };
  for (const [number, folder] of Object.entries(devices)) {
    files[`sys/devices/${folder}/dev`] = `${number}\n`;
    files[`sys/dev/block/${number}`] = `-> ../../devices/${folder}`;
  }
  for (const [upper, lower] of slaves) {
    files[`sys/devices/${upper}/slaves/${lower.split('/').at(-1)}`] = `-> ../../${lower}`;
  }
  return makeTree(files);
}

describe('a device lies on', () => {
  it.each([
    ['itself', '43:0', 'nbd0'],
    ['its disk', '43:1', 'nbd0'],
    ['a partition of the disk', '253:0', 'nbd0p1'],
    ['the disk below a partition below it', '253:0', 'nbd0'],
    ['one disk of several', '253:1', 'vda'],
    ['the other disk, through two devices', '253:1', 'nbd0'],
    ['what the disk of its partition lies on', '259:0', 'nbd0'],
  ])('%s', (_, number, device) => {
    root = stack();
    expect(deviceLiesOn(number, device, root)).toBe(true);
  });

  it.each([
    ['another disk', '43:0', 'nbd1'],
    ['what lies on it', '43:0', 'dm-0'],
    ['a disk whose name begins so', '43:1', 'nbd'],
    ['anything when there is no such device', '1:1', 'nbd0'],
  ])('not on %s', (_, number, device) => {
    root = stack();
    expect(deviceLiesOn(number, device, root)).toBe(false);
  });

  it('anything when there is no end below it', () => {
    root = makeTree({
      'sys/devices/dm-0/dev': '253:0\n',
      'sys/dev/block/253:0': '-> ../../devices/dm-0',
      'sys/devices/dm-0/slaves/dm-0': '-> ..',
    });
    expect(deviceLiesOn('253:0', 'nbd0', root)).toBe(true);
  });
});

it('a file of btrfs, whose number is of no device, lies on all devices of that file system', () => {
  // /proc stands for the btrfs: its files have made-up numbers too. The mount names one device, which must be there.
  const disk = readdirSync('/sys/block').find((name) => existsSync(`/dev/${name}`)) ?? 'no disk in /dev';
  const number = deviceNumberText(statSync(`/dev/${disk}`).rdev);
  root = makeTree({
    'proc/self/mountinfo': `1 0 0:1 / / rw - ext4 /dev/x rw\n2 1 0:21 / /proc rw - btrfs /dev/${disk} rw\n3 1 0:22 / /pro rw - ext4 /dev/x rw\n`,
    [`sys/devices/${disk}/dev`]: `${number}\n`,
    [`sys/dev/block/${number}`]: `-> ../../devices/${disk}`,
    'sys/devices/nbd7/dev': '43:224\n',
    'sys/dev/block/43:224': '-> ../../devices/nbd7',
    'sys/fs/btrfs/features/raid1': '0\n',
    [`sys/fs/btrfs/id/devices/${disk}`]: `-> ../../../../devices/${disk}`,
    'sys/fs/btrfs/id/devices/nbd7': '-> ../../../../devices/nbd7',
  });
  expect(imageLiesOn('/proc/version', disk, root)).toBe(true);
  expect(imageLiesOn('/proc/version', 'nbd7', root)).toBe(true);
  expect(imageLiesOn('/proc/version', 'nbd8', root)).toBe(false);
});

it('a path that is not there lies nowhere', () => {
  expect(imageLiesOn('/nothing/at/all', 'nbd0')).toBe(false);
});

it('a file lies on no device that is not there', () => {
  expect(imageLiesOn(process.execPath, 'nbd4711')).toBe(false);
});
