import { rmSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { mountAt, mountedDevice } from '#tsnbd/kernel/mount-table.js';
import { makeTree } from './tree.js';

let root = '';
afterEach(() => rmSync(root, { recursive: true }));

const mountOf = (number: string, point: string, rest = 'ext4 whatever') => `9 8 ${number} / ${point} rw - ${rest} rw\n`;

test('of several mounts in a place the last one is seen', () => {
  root = makeTree({
    'proc/self/mountinfo': `${mountOf('8:1', '/mnt')}${mountOf('43:1', '/mnt')}${mountOf('43:2', '/mnt/x')}`,
  });
  expect(mountAt('/mnt', undefined, root)?.deviceNumber).toBe('43:1');
  expect(mountAt('/else', undefined, root)).toBeUndefined();
});

test('the mounts of another namespace are those of a process in it', () => {
  root = makeTree({
    'proc/self/mountinfo': mountOf('8:1', '/mnt'),
    'proc/7/ns/mnt': '-> mnt:[7]',
    'proc/7/mountinfo': mountOf('43:7', '/mnt'),
    'proc/9/ns/mnt': '-> mnt:[9]',
    'proc/9/mountinfo': mountOf('43:9', '/mnt'),
    'proc/20/fd/4': '-> mnt:[9]',
    'proc/20/fd/5': '-> mnt:[10]',
  });
  expect(mountAt('/mnt', `${root}/proc/20/fd/4`, root)?.deviceNumber).toBe('43:9');
  expect(() => mountAt('/mnt', `${root}/proc/20/fd/5`, root)).toThrow('nobody is in the mount namespace');
});

test('a mount of a device or of a partition is told by its number, of btrfs by its source', () => {
  root = makeTree({
    'proc/filesystems': 'nodev\ttmpfs\n\tbtrfs\n',
    'sys/dev/block/43:0': '-> ../../devices/virtual/block/nbd0',
    'sys/dev/block/43:33': '-> ../../devices/virtual/block/nbd1/nbd1p1',
    'sys/dev/block/8:1': '-> ../../devices/pci/block/sda/sda1',
    'proc/self/mountinfo': [
      mountOf('43:0', '/whole'),
      mountOf('43:33', '/part'),
      mountOf('8:1', '/disk'),
      mountOf('0:40', '/btrfs', 'btrfs /dev/nbd2p3'),
      mountOf('0:41', '/lie', 'tmpfs /dev/nbd3'),
    ].join(''),
  });
  const device = (folder: string) => {
    const mount = mountAt(folder, undefined, root);
    return mount === undefined ? 'none' : mountedDevice(mount, root);
  };
  expect(device('/whole')).toEqual({ device: 'nbd0', node: 'nbd0' });
  expect(device('/part')).toEqual({ device: 'nbd1', node: 'nbd1p1' });
  expect(device('/btrfs')).toEqual({ device: 'nbd2', node: 'nbd2p3' });
  expect(['/disk', '/lie'].map(device)).toEqual([undefined, undefined]);
});
