import { readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { afterEach, expect, it } from 'vitest';
import { invariant } from '#tsnbd/base/invariant.js';
import { type FileCalls, fileCalls } from '#tsnbd/image/file-calls.js';
import type { Image } from '#tsnbd/image/image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { NEXT_FREE } from '#tsnbd/image/qcow2/memory.js';
import { newCacheMemory } from '#tsnbd/image/qcow2/slice-cache.js';
import { useTemporaryFolder } from '../temporary-folder.js';
import { type Cluster, qcow2Bytes } from './qcow2-bytes.js';

const { EIO, ENOSPC } = constants.errno;
const inFolder = useTemporaryFolder();
const clusterBytes = 512;
/** Clusters that a refcount block tells of, and all blocks of a table of one cluster. */
const blockClusters = clusterBytes / 2;
const tableClusters = (clusterBytes / 8) * blockClusters;
/** Slices of refcounts in memory: two sets of eight, so that each second block is in the same one. */
const slots = 16;
const OFFSET = 0xfffffffffffffen;

const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});

/** An image in whose file data stand right behind the refcount table: those of guest cluster 1. */
function tableBeforeData(): { bytes: Buffer; tableAt: number; l1At: number } {
  const data = (byte: number): Cluster => ({ kind: 'data', bytes: new Uint8Array(clusterBytes).fill(byte) });
  const clusters = new Map([data(1), data(2)].map((cluster, guest) => [guest, cluster]));
  const { bytes, l1At, l2At, refcountTableAt } = qcow2Bytes({ clusterBits: 9, sizeBytes: 1 << 20, clusters });
  const l2 = l2At.get(0) ?? 0;
  const tableAt = Number(bytes.readBigUInt64BE(l2) & OFFSET);
  bytes.copy(bytes, tableAt, refcountTableAt, refcountTableAt + clusterBytes);
  bytes.writeBigUInt64BE(BigInt(tableAt), 48);
  bytes.writeBigUInt64BE(1n, l2);
  return { bytes, tableAt, l1At };
}

function open(...calls: Partial<FileCalls>[]) {
  return openOf(tableBeforeData(), ...calls);
}

function openOf({ bytes, tableAt }: { bytes: Buffer; tableAt: number }, ...calls: Partial<FileCalls>[]) {
  const path = inFolder('disk.qcow2');
  writeFileSync(path, bytes);
  const { handle, close } = openImage(path, { readOnly: false });
  undo.push(close);
  invariant(handle.format === 'qcow2' && handle.memory.write !== undefined, 'it is a qcow2 image that is written to');
  const refcounts = newCacheMemory(Number.MAX_SAFE_INTEGER, clusterBytes, slots * clusterBytes);
  const write = { ...handle.memory.write, refcounts };
  const images = calls.map((own) =>
    imageFrom({ ...handle, memory: { ...handle.memory, write } }, { ...fileCalls, ...own }),
  );
  for (const image of images) undo.push(() => image.close());
  const allocateFrom = (cluster: number) => {
    write.numbers[NEXT_FREE] = cluster;
  };
  return { path, tableAt, images, allocateFrom, nextFree: () => write.numbers[NEXT_FREE] };
}

function write(image: Image | undefined, guest: number, byte = 9): number {
  return image?.write(guest * clusterBytes, clusterBytes, new Uint8Array(clusterBytes).fill(byte), 0, false) ?? -1;
}

/** Frees one cluster in each second block: none of a set of slices is in the file then. */
function freeOneInEachSecondBlock(image: Image | undefined, allocateFrom: (cluster: number) => void): void {
  for (let each = 1; each <= slots / 2; each += 1) {
    allocateFrom(2 * each * blockClusters);
    expect(write(image, 1 + each)).toBe(0);
  }
  expect(image?.flush()).toBe(0);
  expect(image?.trim(2 * clusterBytes, (slots / 2) * clusterBytes, false)).toBe(0);
}

it('data that lie behind the refcount table can be written while it grows', () => {
  let during = -1;
  const calls: Partial<FileCalls> = {
    write: (...call) => {
      const isTable = call[3] > clusterBytes;
      if (isTable) during = write(images[1], 1, 7);
      return fileCalls.write(...call);
    },
  };
  const { images, allocateFrom } = open(calls, {});
  allocateFrom(tableClusters);
  expect(write(images[0], 20)).toBe(0);
  expect(during).toBe(0);
  expect(images[0]?.flush()).toBe(0);
  const target = new Uint8Array(2);
  expect(images[1]?.read(clusterBytes, 1, target, 0)).toBe(0);
  expect(images[1]?.read(20 * clusterBytes, 1, target, 1)).toBe(0);
  expect([...target]).toEqual([7, 9]);
});

it('a refcount table that grows when much was freed leaves what lies behind it', () => {
  const { path, tableAt, images, allocateFrom } = open({});
  freeOneInEachSecondBlock(images[0], allocateFrom);
  allocateFrom(tableClusters);
  expect(write(images[0], 20)).toBe(0);
  const behind = readFileSync(path).subarray(tableAt + clusterBytes, tableAt + 2 * clusterBytes);
  expect(behind.every((byte) => byte === 2)).toBe(true);
});

it('a new refcount block is counted before the table in the file points to it', () => {
  const { path, tableAt, images, allocateFrom } = open({});
  freeOneInEachSecondBlock(images[0], allocateFrom);
  expect(images[0]?.flush()).toBe(0); // they are free from here on, which the file does not know
  const block = slots + 4;
  allocateFrom(block * blockClusters);
  expect(write(images[0], 20)).toBe(0);
  const file = readFileSync(path);
  const blockAt = Number(file.readBigUInt64BE(tableAt + block * 8));
  const isCounted = blockAt === 0 || file.readUInt16BE(blockAt + ((blockAt / clusterBytes) % blockClusters) * 2) === 1;
  expect(isCounted).toBe(true);
});

it('what is allocated while much waits for being free finds room for its refcount', () => {
  const { images, allocateFrom } = open({});
  freeOneInEachSecondBlock(images[0], allocateFrom);
  for (let each = 1; each <= slots / 2; each += 1) {
    allocateFrom(2 * each * blockClusters);
    expect(write(images[0], 20 + each)).toBe(0);
  }
  allocateFrom((slots + 4) * blockClusters);
  expect(write(images[0], 40)).toBe(0);
  expect(images[0]?.flush()).toBe(0);
  const target = new Uint8Array(1);
  expect(images[0]?.read(40 * clusterBytes, 1, target, 0)).toBe(0);
  expect(target[0]).toBe(9);
});

it('what is used is not looked through again after an allocation that failed', () => {
  const { images, allocateFrom, nextFree } = open({ write: () => -ENOSPC });
  allocateFrom(tableClusters - 1); // becomes a refcount block, whose table has no room for the next
  expect(write(images[0], 20)).toBe(ENOSPC);
  expect(nextFree()).toBe(tableClusters);
});

it('a disk that is full when the refcount table is to grow is told, and room helps', () => {
  let isFull = false;
  const { images, allocateFrom } = open({
    write: (...call) => (isFull ? -ENOSPC : fileCalls.write(...call)),
  });
  expect(write(images[0], 10, 5)).toBe(0);
  allocateFrom(tableClusters);
  isFull = true;
  expect(write(images[0], 20)).toBe(ENOSPC);
  expect(images[0]?.flush()).toBe(ENOSPC);
  isFull = false;
  expect(write(images[0], 20)).toBe(0);
  expect(images[0]?.flush()).toBe(0);
  const target = new Uint8Array(2);
  expect(images[0]?.read(10 * clusterBytes, 1, target, 0)).toBe(0);
  expect(images[0]?.read(20 * clusterBytes, 1, target, 1)).toBe(0);
  expect([...target]).toEqual([5, 9]);
});

/** Moves the L2 table of the first clusters, or the L1 table, to a cluster that nothing counts. */
function withTableAt(kind: string, cluster: number): { bytes: Buffer; tableAt: number } {
  const image = tableBeforeData();
  const bytes = Buffer.alloc((cluster + 1) * clusterBytes);
  image.bytes.copy(bytes);
  const pointer = kind === 'L1' ? 40 : image.l1At;
  const from = Number(bytes.readBigUInt64BE(pointer) & OFFSET);
  bytes.copy(bytes, cluster * clusterBytes, from, from + clusterBytes);
  bytes.writeBigUInt64BE(BigInt(cluster * clusterBytes) | (kind === 'L1' ? 0n : 1n << 63n), pointer);
  return { bytes, tableAt: image.tableAt };
}

// The new table is two clusters, and one block follows.
it.each([
  ['L2', 0],
  ['L2', 1],
  ['L2', 2],
  ['L1', 1],
  ['L1', 2],
])('a refcount table that would grow over an %s table, at its cluster %i, does not; reads go on', (kind, at) => {
  const { path, images, allocateFrom } = openOf(withTableAt(kind, tableClusters + at), {}, {});
  const before = readFileSync(path);
  allocateFrom(tableClusters);
  expect(write(images[0], 80)).toBe(EIO);
  const after = readFileSync(path);
  expect((after[79] ?? 0) & 2).toBe(2);
  expect(after.subarray(clusterBytes).equals(before.subarray(clusterBytes))).toBe(true);
  const target = new Uint8Array(1);
  for (const image of images) {
    expect(write(image, 1)).toBe(EIO);
    expect(image.read(clusterBytes, 1, target, 0)).toBe(0);
    expect(target[0]).toBe(2);
  }
});
