import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { afterEach, describe, expect, it } from 'vitest';
import { invariant } from '#tsnbd/base/invariant.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { NEXT_FREE } from '#tsnbd/image/qcow2/memory.js';
import { MetadataAreas, REFCOUNT_BLOCK } from '#tsnbd/image/qcow2/metadata-areas.js';
import { useTemporaryFolder } from '../temporary-folder.js';

const { EFBIG, EIO } = constants.errno;
const inFolder = useTemporaryFolder();
const clusterBytes = 65_536;
const COPIED = 1n << 63n;
/** Whatever takes longer never ends. */
const HANG_MS = 10_000;
// Where things are in an image of ours, in clusters.
const L1 = 1;
const L2 = 2;
const TABLE = 3;
const TABLE_CLUSTERS = 8;
const BLOCK = 12;
const DATA = 13;
const CLUSTERS = 14;
const tableEntries = (TABLE_CLUSTERS * clusterBytes) / 8;

const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});

/** Guest cluster 0 is data, and 1 the image's own L2 table; the first refcount block tells of the file. */
function image(refcountOrder: number): Buffer {
  const bytes = Buffer.alloc(CLUSTERS * clusterBytes);
  const entry = (at: number, cluster: number, bits = COPIED) =>
    bytes.writeBigUInt64BE(bits | BigInt(cluster * clusterBytes), at);
  bytes.write('QFI\xfb', 0, 'latin1');
  bytes.writeUInt32BE(3, 4);
  bytes.writeUInt32BE(16, 20);
  bytes.writeBigUInt64BE(64n * 65_536n, 24);
  bytes.writeUInt32BE(1, 36);
  entry(40, L1, 0n);
  entry(48, TABLE, 0n);
  bytes.writeUInt32BE(TABLE_CLUSTERS, 56);
  bytes.writeUInt32BE(refcountOrder, 96);
  bytes.writeUInt32BE(112, 100);
  entry(L1 * clusterBytes, L2);
  entry(L2 * clusterBytes, DATA);
  entry(L2 * clusterBytes + 8, L2);
  entry(TABLE * clusterBytes, BLOCK, 0n);
  for (let cluster = 0; cluster < CLUSTERS; cluster += 1) bytes.writeUInt16BE(1, BLOCK * clusterBytes + 2 * cluster);
  bytes.fill(7, DATA * clusterBytes);
  return bytes;
}

/** Has the refcount table name blocks far behind the end of the file, `count` of them with the one that is there. */
function nameBlocks(bytes: Buffer, count: number): void {
  for (let block = 1; block < count; block += 1) {
    bytes.writeBigUInt64BE(BigInt((100_000 + block) * clusterBytes), TABLE * clusterBytes + 8 * block);
  }
}

function open(path: string) {
  const { handle, close } = openImage(path, { readOnly: false });
  undo.push(close);
  invariant(handle.format === 'qcow2' && handle.memory.write !== undefined, 'it is a qcow2 image that is written to');
  const opened = imageFrom(handle);
  undo.push(() => opened.close());
  const { numbers, areas } = handle.memory.write;
  return { image: opened, numbers, areas };
}

describe('a refcount table that names blocks by the thousands', () => {
  it.each([100, 60_000, tableEntries])('hides no other table: %i of them', (count) => {
    const bytes = image(4);
    nameBlocks(bytes, count);
    const path = inFolder('a.qcow2');
    writeFileSync(path, bytes);
    const opened = open(path);
    expect(opened.image.write(clusterBytes, 512, Buffer.alloc(512, 0xaa), 0, false)).toBe(EIO);
    const after = readFileSync(path);
    expect((after[79] ?? 0) & 2).toBe(2);
    expect(after.readBigUInt64BE(L2 * clusterBytes)).toBe(COPIED | BigInt(DATA * clusterBytes));
  });

  it.each([100, 60_000, tableEntries])('is refused if it names one twice: the last of %i', (count) => {
    const bytes = image(4);
    nameBlocks(bytes, count);
    bytes.writeBigUInt64BE(BigInt((100_000 + count - 2) * clusterBytes), TABLE * clusterBytes + 8 * (count - 1));
    const path = inFolder('a.qcow2');
    writeFileSync(path, bytes);
    expect(() => openImage(path, { readOnly: false })).toThrow(
      `refcount block ${count - 1} lies where another table is`,
    );
  });
});

it('an image takes no more tables than can be told from data: a write that needs one is refused, and no other', () => {
  const bytes = image(4);
  bytes.writeBigUInt64BE(0n, L1 * clusterBytes);
  const path = inFolder('a.qcow2');
  writeFileSync(path, bytes);
  const opened = open(path);
  const areas = new MetadataAreas(opened.areas);
  const write = () => opened.image.write(0, 512, Buffer.alloc(512, 9), 0, false);
  for (let cluster = 1_000_000; areas.hasRoom(1); cluster += 1) areas.add(cluster, REFCOUNT_BLOCK);
  expect(write()).toBe(EFBIG);
  expect(opened.image.flush()).toBe(0);
  opened.areas.slots.fill(0);
  opened.areas.counts[0] = 0;
  expect(write()).toBe(0);
});

describe('clusters that are counted by the million', () => {
  /** Full refcount blocks behind the image. */
  function withFullBlocks(path: string, refcountOrder: number, byte: number, blocks: number): number {
    const bytes = image(refcountOrder);
    bytes.fill(byte, BLOCK * clusterBytes, (BLOCK + 1) * clusterBytes);
    for (let block = 1; block <= blocks; block += 1) {
      bytes.writeBigUInt64BE(BigInt((CLUSTERS + block) * clusterBytes), TABLE * clusterBytes + 8 * block);
    }
    const fd = openSync(path, 'w');
    writeSync(fd, bytes, 0, bytes.length, 0);
    const full = Buffer.alloc(clusterBytes, byte);
    for (let block = 1; block <= blocks; block += 1) {
      writeSync(fd, full, 0, clusterBytes, (CLUSTERS + block) * clusterBytes);
    }
    closeSync(fd);
    return ((blocks + 1) * clusterBytes * 8) / 2 ** refcountOrder;
  }

  it.each([
    [0, 0xff],
    [1, 0x55],
    [2, 0x11],
  ])(
    'are passed over fast: refcounts of 2^%i bits',
    (refcountOrder, byte) => {
      const path = inFolder('a.qcow2');
      const counted = withFullBlocks(path, refcountOrder, byte, 400);
      const opened = open(path);
      expect(opened.image.write(2 * clusterBytes, 512, Buffer.alloc(512, 9), 0, false)).toBe(0);
      // The first is the block that tells of the second.
      expect(opened.numbers[NEXT_FREE]).toBe(counted + 2);
    },
    HANG_MS,
  );
});
