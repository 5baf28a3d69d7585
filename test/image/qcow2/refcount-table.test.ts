import { writeFileSync } from 'node:fs';
import { afterEach, expect, it } from 'vitest';
import { invariant } from '#tsnbd/base/invariant.js';
import { type FileCalls, fileCalls } from '#tsnbd/image/file-calls.js';
import type { Image } from '#tsnbd/image/image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { NEXT_FREE } from '#tsnbd/image/qcow2/memory.js';
import { useTemporaryFolder } from '../temporary-folder.js';
import { type Cluster, qcow2Bytes } from './qcow2-bytes.js';

const inFolder = useTemporaryFolder();
const clusterBytes = 512;
/** Clusters that a refcount block tells of, and all blocks of a table of one cluster. */
const blockClusters = clusterBytes / 2;
const tableClusters = (clusterBytes / 8) * blockClusters;
const OFFSET = 0xfffffffffffffen;

const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});

/** An image in whose file data stand right behind the refcount table: those of guest cluster 1. */
function tableBeforeData(): Buffer {
  const data = (byte: number): Cluster => ({ kind: 'data', bytes: new Uint8Array(clusterBytes).fill(byte) });
  const clusters = new Map([data(1), data(2)].map((cluster, guest) => [guest, cluster]));
  const { bytes, l2At, refcountTableAt } = qcow2Bytes({ clusterBits: 9, sizeBytes: 1 << 20, clusters });
  const l2 = l2At.get(0) ?? 0;
  const tableAt = Number(bytes.readBigUInt64BE(l2) & OFFSET);
  bytes.copy(bytes, tableAt, refcountTableAt, refcountTableAt + clusterBytes);
  bytes.writeBigUInt64BE(BigInt(tableAt), 48);
  bytes.writeBigUInt64BE(1n, l2);
  return bytes;
}

function open(...calls: Partial<FileCalls>[]) {
  const path = inFolder('disk.qcow2');
  writeFileSync(path, tableBeforeData());
  const { handle, close } = openImage(path, { readOnly: false });
  undo.push(close);
  invariant(handle.format === 'qcow2' && handle.memory.write !== undefined, 'it is a qcow2 image that is written to');
  const { write } = handle.memory;
  const images = calls.map((own) => imageFrom(handle, { ...fileCalls, ...own }));
  for (const image of images) undo.push(() => image.close());
  const allocateFrom = (cluster: number) => {
    write.numbers[NEXT_FREE] = cluster;
  };
  return { images, allocateFrom };
}

function write(image: Image | undefined, guest: number, byte = 9): number {
  return image?.write(guest * clusterBytes, clusterBytes, new Uint8Array(clusterBytes).fill(byte), 0, false) ?? -1;
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
