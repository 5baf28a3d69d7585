import { readFileSync, writeFileSync } from 'node:fs';
import { afterEach, expect, it } from 'vitest';
import { type FileCalls, fileCalls } from '#tsnbd/image/file-calls.js';
import type { Image } from '#tsnbd/image/image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { useTemporaryFolder } from '../temporary-folder.js';
import { type Cluster, qcow2Bytes } from './qcow2-bytes.js';

const CLUSTER = 4096;
const HEADER = 112;
const inFolder = useTemporaryFolder();
const path = () => inFolder('disk.qcow2');

const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});

/** An image whose first eight clusters are data, beside each other, and the calls that it makes on its file. */
function open(extensions: readonly (readonly [number, Uint8Array])[] = []): { image: Image; calls: string[] } {
  const clusters = Array.from({ length: 8 }, (_, cluster): [number, Cluster] => {
    return [cluster, { kind: 'data', bytes: new Uint8Array(CLUSTER).fill(cluster + 1) }];
  });
  const wish = { clusterBits: 12, sizeBytes: 2_000 * CLUSTER, clusters: new Map(clusters), extensions };
  writeFileSync(path(), qcow2Bytes(wish).bytes);
  const opened = openImage(path(), { readOnly: false });
  undo.push(() => opened.close());
  const calls: string[] = [];
  const counted: Partial<FileCalls> = {
    read: (fd, target, at, length, offsetBytes) => {
      calls.push(`read ${length}`);
      return fileCalls.read(fd, target, at, length, offsetBytes);
    },
    write: (fd, source, at, length, offsetBytes) => {
      calls.push(`write ${length}`);
      return fileCalls.write(fd, source, at, length, offsetBytes);
    },
    sync: (fd) => {
      calls.push('sync');
      return fileCalls.sync(fd);
    },
  };
  const image = imageFrom(opened.handle, { ...fileCalls, ...counted });
  undo.push(() => image.close());
  // Its table is in memory from here on.
  expect(image.read(0, 1, new Uint8Array(1), 0)).toBe(0);
  calls.length = 0;
  return { image, calls };
}

const write = (image: Image, cluster: number, clusters = 1) =>
  image.write(cluster * CLUSTER, clusters * CLUSTER, new Uint8Array(clusters * CLUSTER).fill(9), 0, false);

it('what is written in its place and flushed is one write and one sync', () => {
  const { image, calls } = open();
  for (let round = 0; round < 3; round += 1) {
    expect(write(image, 2)).toBe(0);
    expect(image.flush()).toBe(0);
  }
  expect(calls).toEqual(Array.from({ length: 3 }, () => [`write ${CLUSTER}`, 'sync']).flat());
});

it('a flush syncs once for each stage that has something, and once for the data', () => {
  const { image, calls } = open();
  const syncs = () => calls.splice(0).filter((call) => call === 'sync').length;
  expect(write(image, 20)).toBe(0);
  expect(image.flush()).toBe(0);
  // Refcounts and data before the entry that relies on them, and the entry.
  expect(syncs()).toBe(2);
  expect(image.zero(0, CLUSTER, 0, false)).toBe(0);
  expect(image.flush()).toBe(0);
  // An entry alone.
  expect(syncs()).toBe(1);
  expect(image.flush()).toBe(0);
  expect(syncs()).toBe(1);
});

it('clusters that are neighbours in the file are one read, one write and one write of new ones', () => {
  const { image, calls } = open();
  const target = new Uint8Array(8 * CLUSTER);
  expect(image.read(0, target.length, target, 0)).toBe(0);
  expect(calls.splice(0)).toEqual([`read ${8 * CLUSTER}`]);
  expect(write(image, 1, 6)).toBe(0);
  expect(calls.splice(0)).toEqual([`write ${6 * CLUSTER}`]);
  expect(write(image, 100, 8)).toBe(0);
  expect(calls.filter((call) => call.startsWith('write'))).toEqual([`write ${8 * CLUSTER}`]);
});

it('header extensions that nobody knows stay as they are, whatever is written', () => {
  const unknown = Uint8Array.from({ length: 21 }, (_, index) => index + 1);
  const { image } = open([
    [0x7e57_7e57, unknown],
    [0x7e57_7e58, new Uint8Array(0)],
  ]);
  const before = readFileSync(path()).subarray(HEADER, CLUSTER);
  expect(before.includes(Buffer.from(unknown))).toBe(true);
  // The whole disk, so that tables and refcount blocks are made too.
  for (let cluster = 0; cluster < 2_000; cluster += 50) expect(write(image, cluster, 50)).toBe(0);
  expect(image.trim(0, 1_000 * CLUSTER, false)).toBe(0);
  for (const step of undo.splice(0).reverse()) step();
  expect(readFileSync(path()).subarray(HEADER, CLUSTER).equals(before)).toBe(true);
});
