import { writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { describe, expect, it } from 'vitest';
import { emptyExtent, type Image } from '#tsnbd/image/image.js';
import { useTemporaryFolder } from '../temporary-folder.js';
import { readAll, withImage } from './open-qcow2.js';
import { BACKING_FORMAT, type Cluster, DATA_FILE_NAME, qcow2Bytes, type Wish } from './qcow2-bytes.js';

const { EIO } = constants.errno;
const inFolder = useTemporaryFolder();

function make(name: string, wish: Wish): string {
  const path = inFolder(name);
  writeFileSync(path, qcow2Bytes(wish).bytes);
  return path;
}

/** Never zero, and different from cluster to cluster. */
function pattern(bytes: number, seed: number): Buffer {
  return Buffer.from(new Uint8Array(bytes).map((_, i) => ((i * 7 + (i >>> 8) + seed * 31) % 255) + 1));
}

/** Rows of [length, hole, zero, depth], over the whole disk. */
function map(image: Image): unknown[] {
  const extent = emptyExtent();
  const rows: unknown[] = [];
  for (let at = 0; at < image.sizeBytes; at += extent.lengthBytes) {
    expect(image.status(at, image.sizeBytes - at, extent)).toBe(0);
    rows.push([extent.lengthBytes, extent.hole, extent.zero, extent.depth]);
  }
  return rows;
}

describe.each([9, 12, 16])('with clusters of 2^%i bytes', (clusterBits) => {
  const clusterBytes = 2 ** clusterBits;
  const data = (seed: number): Cluster => ({ kind: 'data', bytes: pattern(clusterBytes, seed) });
  const clusters = new Map<number, Cluster>([
    [1, data(1)],
    [2, data(2)],
    [3, { kind: 'zero' }],
    [4, { kind: 'zero-allocated' }],
    [5, data(5)],
    [6, { kind: 'compressed', bytes: pattern(clusterBytes, 6) }],
    [8, data(8)],
  ]);
  const sizeBytes = 9 * clusterBytes + 512;

  it('every kind of cluster reads as what it is, in pieces of any size', () => {
    const whole = Buffer.alloc(10 * clusterBytes);
    for (const seed of [1, 2, 5, 6, 8]) whole.set(pattern(clusterBytes, seed), seed * clusterBytes);
    withImage(make('a.qcow2', { clusterBits, sizeBytes, clusters }), (image) => {
      expect(image.sizeBytes).toBe(sizeBytes);
      for (const pieceBytes of [sizeBytes, clusterBytes, clusterBytes + 512, 1000]) {
        expect(readAll(image, Math.max(pieceBytes, 300)).equals(whole.subarray(0, sizeBytes))).toBe(true);
      }
    });
  });

  it('block status tells data, holes and zeroes, and that neighbours are one', () => {
    withImage(make('a.qcow2', { clusterBits, sizeBytes, clusters }), (image) => {
      expect(map(image)).toEqual([
        [clusterBytes, true, true, 0],
        [2 * clusterBytes, false, false, 1],
        [clusterBytes, true, true, 1],
        [clusterBytes, false, true, 1],
        [clusterBytes, false, false, 1],
        [clusterBytes, false, false, 1],
        [clusterBytes, true, true, 0],
        [clusterBytes, false, false, 1],
        [512, true, true, 0],
      ]);
    });
  });

  it('what is unallocated is the backing file, and zeroes behind its end', () => {
    const raw = pattern(3 * clusterBytes + 700, 40);
    writeFileSync(inFolder('base.raw'), raw);
    const middle = make('middle.qcow2', {
      clusterBits: 12,
      sizeBytes: 9 * clusterBytes,
      backing: 'base.raw',
      extensions: [[BACKING_FORMAT, Buffer.from('raw')]],
    });
    expect(middle).toBe(inFolder('middle.qcow2'));
    const top = make('top.qcow2', {
      clusterBits,
      sizeBytes,
      clusters: new Map([[1, data(1)]]),
      backing: 'middle.qcow2',
      extensions: [[BACKING_FORMAT, Buffer.from('qcow2')]],
    });
    const whole = Buffer.alloc(sizeBytes);
    raw.copy(whole);
    whole.set(pattern(clusterBytes, 1), clusterBytes);
    withImage(top, (image) => {
      expect(readAll(image, clusterBytes + 512).equals(whole)).toBe(true);
      const rows = map(image);
      expect(rows.slice(0, 2)).toEqual([
        [clusterBytes, false, false, 3],
        [clusterBytes, false, false, 1],
      ]);
      expect(rows.at(-1)).toMatchObject({ 1: true, 2: true, 3: 0 });
    });
  });

  it('a cluster that the file ends in, or before, reads as zeroes there', () => {
    const { bytes } = qcow2Bytes({ clusterBits, sizeBytes, clusters: new Map([[0, data(3)]]) });
    const l2At = 2 * clusterBytes;
    bytes.writeBigUInt64BE((1n << 63n) | BigInt(bytes.length - clusterBytes), l2At + 8);
    bytes.writeBigUInt64BE((1n << 63n) | BigInt(2 ** 40), l2At + 16);
    const path = inFolder('cut.qcow2');
    writeFileSync(path, bytes.subarray(0, bytes.length - clusterBytes + 100));
    withImage(path, (image) => {
      const got = readAll(image);
      expect(got.subarray(0, clusterBytes).equals(pattern(clusterBytes, 3))).toBe(true);
      expect(got.subarray(clusterBytes + 100).every((byte) => byte === 0)).toBe(true);
    });
  });
});

describe('subclusters', () => {
  const clusterBytes = 16_384;
  const wish = (allocated: number, zero: number): Wish => ({
    clusterBits: 14,
    sizeBytes: 4 * clusterBytes,
    incompatible: 1n << 4n,
    clusters: new Map<number, Cluster>([
      [0, { kind: 'data', bytes: pattern(clusterBytes, 1) }],
      [1, { kind: 'subclusters', allocated, zero, bytes: pattern(clusterBytes, 2) }],
      [2, { kind: 'compressed', bytes: pattern(clusterBytes, 3) }],
    ]),
    backing: 'base.raw',
    extensions: [[BACKING_FORMAT, Buffer.from('raw')]],
  });

  it('are data, zeroes, or the backing file, each by itself', () => {
    writeFileSync(inFolder('base.raw'), pattern(4 * clusterBytes, 9));
    const [allocated, zero] = [0x8000_00f1, 0x4000_0f00];
    withImage(make('a.qcow2', wish(allocated, zero)), (image) => {
      const whole = pattern(4 * clusterBytes, 9);
      whole.set(pattern(clusterBytes, 1), 0);
      for (let unit = 0; unit < 32; unit += 1) {
        const at = unit * 512;
        if (((allocated >>> unit) & 1) === 1) {
          whole.set(pattern(clusterBytes, 2).subarray(at, at + 512), clusterBytes + at);
        } else if (((zero >>> unit) & 1) === 1) whole.fill(0, clusterBytes + at, clusterBytes + at + 512);
      }
      whole.set(pattern(clusterBytes, 3), 2 * clusterBytes);
      for (const pieceBytes of [4 * clusterBytes, 512, 700])
        expect(readAll(image, pieceBytes).equals(whole)).toBe(true);
      expect(map(image).slice(0, 5)).toEqual([
        [clusterBytes + 512, false, false, 1],
        [3 * 512, false, false, 2],
        [4 * 512, false, false, 1],
        [4 * 512, false, true, 1],
        [18 * 512, false, false, 2],
      ]);
    });
  });

  it('that are allocated and zeroes at once are an error, and only they', () => {
    writeFileSync(inFolder('base.raw'), pattern(4 * clusterBytes, 9));
    withImage(make('a.qcow2', wish(2, 2)), (image) => {
      const target = Buffer.alloc(clusterBytes);
      expect(image.read(0, clusterBytes, target, 0)).toBe(0);
      expect(image.read(clusterBytes, 512, target, 0)).toBe(0);
      expect(image.read(clusterBytes + 512, 512, target, 0)).toBe(EIO);
      expect(image.status(clusterBytes + 512, 512, emptyExtent())).toBe(EIO);
    });
  });
});

describe('an external data file', () => {
  const sizeBytes = 5 * 65_536;
  const wish: Wish = { sizeBytes, incompatible: 1n << 2n, extensions: [[DATA_FILE_NAME, Buffer.from('data.raw')]] };

  function makeWithData(entries: readonly bigint[]): string {
    const { bytes } = qcow2Bytes({ ...wish, clusters: new Map([[0, { kind: 'zero' }]]) });
    for (const [index, entry] of entries.entries()) bytes.writeBigUInt64BE(entry, 2 * 65_536 + 8 * index);
    const path = inFolder('a.qcow2');
    writeFileSync(path, bytes);
    writeFileSync(inFolder('data.raw'), pattern(sizeBytes - 1000, 5));
    return path;
  }

  it('has the data where the disk has them, from its first byte on', () => {
    const copied = 1n << 63n;
    const whole = Buffer.alloc(sizeBytes);
    whole.set(pattern(sizeBytes - 1000, 5));
    whole.fill(0, 65_536, 2 * 65_536);
    whole.fill(0, 3 * 65_536, 4 * 65_536);
    const entries = [
      copied,
      0n,
      copied | BigInt(2 * 65_536),
      copied | BigInt(3 * 65_536) | 1n,
      copied | BigInt(4 * 65_536),
    ];
    withImage(makeWithData(entries), (image) => expect(readAll(image).equals(whole)).toBe(true));
  });

  it('with an entry that points elsewhere in it is an error', () => {
    withImage(makeWithData([(1n << 63n) | 65_536n]), (image) => {
      expect(image.read(0, 512, Buffer.alloc(512), 0)).toBe(EIO);
    });
  });
});
