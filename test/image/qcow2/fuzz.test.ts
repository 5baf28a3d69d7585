import { statSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { checkImage } from '#tsnbd/image/check-image.js';
import { describeChain } from '#tsnbd/image/describe-image.js';
import { ImageError } from '#tsnbd/image/errors.js';
import { emptyExtent, type Image, ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import type { CheckResult } from '#tsnbd/image/qcow2/check-qcow2.js';
import { long } from '../../long.js';
import { useTemporaryFolder } from '../temporary-folder.js';
import { withImage } from './open-qcow2.js';
import {
  BACKING_FORMAT,
  BITMAPS,
  type Cluster,
  DATA_FILE_NAME,
  FEATURE_NAMES,
  type Qcow2Bytes,
  qcow2Bytes,
  type Wish,
} from './qcow2-bytes.js';

const { EFBIG, EIO, ENOSPC } = constants.errno;
const inFolder = useTemporaryFolder();
const runs = long ? 30_000 : 200;
/** One image of so many is written to and repaired too, which takes longer. */
const WRITES = 3;
const watch = { onFinding: () => {}, onProgress: () => {} };
const guestClusters = 40;
/** What takes longer hangs: most takes milliseconds. */
const LIMIT_MS = 5_000;
/** What one image adds is less by far; what thousands have left for the collector is not its own. */
const ADDED_BYTES_MAX = 2 ** 29;
/** A check of a longer file takes as long as its size asks for. */
const CHECKED_BYTES_MAX = 2 ** 36;

const HEADER_FIELDS = [
  [4, 4],
  [8, 8],
  [16, 4],
  [20, 4],
  [24, 8],
  [32, 4],
  [36, 4],
  [40, 8],
  [48, 8],
  [56, 4],
  [60, 4],
  [64, 8],
  [72, 8],
  [80, 8],
  [88, 8],
  [96, 4],
  [100, 4],
  [104, 1],
] as const;

/** What is likely to be taken wrongly. */
const value = fc.oneof(
  fc.constantFrom(0n, 1n, 2n, 3n, 9n, 14n, 21n, 72n, 104n, 112n, 511n, 512n, 65_535n, 65_536n, 131_072n),
  fc.nat(64).map((bit) => 1n << BigInt(bit)),
  fc.nat(64).map((bit) => (1n << BigInt(bit)) - 1n),
  fc.nat(40).map((cluster) => BigInt(cluster) * 4096n),
  fc
    .tuple(fc.nat(40), fc.constantFrom(0n, 1n, 1n << 62n, 1n << 63n, 3n << 62n))
    .map(([c, bits]) => (BigInt(c) * 4096n) | bits),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
);

const mutation = fc.record({
  where: fc.constantFrom(
    ...['header', 'header', 'extensions', 'l1', 'l2', 'l2', 'data', 'bit'],
    ...['refcount table', 'refcount block', 'refcount block', 'snapshots', 'snapshot L1', 'bitmaps', 'bitmap table'],
  ),
  index: fc.nat(10_000),
  value,
});

/** Where the snapshot table is, and the L1 table of its snapshot; the list of bitmaps, and the table of its bitmap. */
interface Fuzzed extends Qcow2Bytes {
  readonly snapshotsAt?: number;
  readonly snapshotL1At?: number;
  readonly bitmapsAt?: number;
  readonly bitmapTableAt?: number;
}

function apply(image: Fuzzed, mutations: readonly (typeof mutation extends fc.Arbitrary<infer T> ? T : never)[]): void {
  const { bytes, l1At, l2At, extensionsAt, refcountTableAt } = image;
  const { snapshotsAt = 60, snapshotL1At = 60, bitmapsAt = 60, bitmapTableAt = 60 } = image;
  const blockAt = Number(bytes.readBigUInt64BE(refcountTableAt));
  for (const { where, index, value } of mutations) {
    const put = (at: number, size: number) => {
      if (at + size > bytes.length) return;
      const wrapped = BigInt.asUintN(size * 8, value);
      if (size === 8) bytes.writeBigUInt64BE(wrapped, at);
      else bytes.writeUIntBE(Number(wrapped), at, size);
    };
    const [at, size] = HEADER_FIELDS[index % HEADER_FIELDS.length] ?? [0, 4];
    if (where === 'header') put(at, size);
    else if (where === 'extensions') put(extensionsAt + (index % 40) * 4, 4);
    else if (where === 'l1') put(l1At + 8 * (index % 2), 8);
    else if (where === 'l2') put((l2At.get(0) ?? 0) + 8 * (index % 100), 8);
    else if (where === 'refcount table') put(refcountTableAt + 8 * (index % 4), 8);
    else if (where === 'refcount block') put(blockAt + 2 * (index % 32), index % 3 === 0 ? 8 : 2);
    else if (where === 'snapshots') put(snapshotsAt + 2 * (index % 32), index % 2 === 0 ? 4 : 8);
    else if (where === 'snapshot L1') put(snapshotL1At + 8 * (index % 2), 8);
    else if (where === 'bitmaps') put(bitmapsAt + 2 * (index % 16), index % 2 === 0 ? 4 : 8);
    else if (where === 'bitmap table') put(bitmapTableAt + 8 * (index % 2), 8);
    else if (where === 'data') put(index % bytes.length, 1);
    else bytes[index % bytes.length] = (bytes[index % bytes.length] ?? 0) ^ (1 << Number(value % 8n));
  }
}

function original(extended: boolean, extensions: NonNullable<Wish['extensions']> = [], autoclear = 0n): Qcow2Bytes {
  const clusterBits = extended ? 14 : 12;
  const bytes = new Uint8Array(2 ** clusterBits).map((_, i) => (i * 13) % 251);
  const clusters = new Map<number, Cluster>([
    [0, { kind: 'data', bytes }],
    [1, { kind: 'compressed', bytes }],
    [2, { kind: 'zero' }],
    [3, extended ? { kind: 'subclusters', allocated: 0xff, zero: 0xff00, bytes } : { kind: 'zero-allocated' }],
    [9, { kind: 'data', bytes }],
  ]);
  return qcow2Bytes({
    clusterBits,
    sizeBytes: guestClusters * 2 ** clusterBits,
    incompatible: extended ? 16n : 0n,
    autoclear,
    clusters,
    backing: 'base.raw',
    extensions: [
      ...extensions,
      [FEATURE_NAMES, Buffer.alloc(96, 'name')],
      [BACKING_FORMAT, Buffer.from('raw')],
      [0x7e577e57, Buffer.alloc(20)],
    ],
  });
}

/** Has a snapshot share all that an image has. */
function withSnapshot(image: Qcow2Bytes): Fuzzed {
  const clusterBytes = 1 << image.bytes.readUInt32BE(20);
  const snapshotsAt = image.bytes.length;
  const snapshotL1At = snapshotsAt + clusterBytes;
  const bytes = Buffer.concat([image.bytes, Buffer.alloc(2 * clusterBytes)]);
  const blockAt = Number(bytes.readBigUInt64BE(image.refcountTableAt));
  const l2At = image.l2At.get(0) ?? 0;
  const refcount = (at: number, count: number) => bytes.writeUInt16BE(count, blockAt + (2 * at) / clusterBytes);
  const isNoLongerCopied = (at: number) => bytes.writeUInt8((bytes[at] ?? 0) & 0x7f, at);
  isNoLongerCopied(image.l1At);
  for (let entry = 0; entry < guestClusters; entry += 1) isNoLongerCopied(l2At + 8 * entry);
  for (let at = l2At; at < image.refcountTableAt; at += clusterBytes) refcount(at, 2);
  refcount(snapshotsAt, 1);
  refcount(snapshotL1At, 1);
  bytes.copy(bytes, snapshotL1At, image.l1At, image.l1At + 8);
  bytes.writeUInt32BE(1, 60);
  bytes.writeBigUInt64BE(BigInt(snapshotsAt), 64);
  bytes.writeBigUInt64BE(BigInt(snapshotL1At), snapshotsAt);
  bytes.writeUInt32BE(1, snapshotsAt + 8);
  bytes.writeUInt16BE(1, snapshotsAt + 12);
  bytes.writeUInt16BE(4, snapshotsAt + 14);
  bytes.writeUInt32BE(16, snapshotsAt + 36);
  bytes.copy(bytes, snapshotsAt + 48, 24, 32);
  bytes.write('1name', snapshotsAt + 56, 'latin1');
  return { ...image, bytes, snapshotsAt, snapshotL1At };
}

/** With a bitmap of all of it, which has one cluster. */
function withBitmap(): Fuzzed {
  const image = original(false, [[BITMAPS, Buffer.alloc(24)]], 1n);
  const clusterBytes = 4096;
  const bitmapsAt = image.bytes.length;
  const bitmapTableAt = bitmapsAt + clusterBytes;
  const bytes = Buffer.concat([image.bytes, Buffer.alloc(3 * clusterBytes)]);
  const blockAt = Number(bytes.readBigUInt64BE(image.refcountTableAt));
  for (let at = bitmapsAt; at < bytes.length; at += clusterBytes)
    bytes.writeUInt16BE(1, blockAt + (2 * at) / clusterBytes);
  const extensionAt = image.extensionsAt + 8;
  bytes.writeUInt32BE(1, extensionAt);
  bytes.writeBigUInt64BE(32n, extensionAt + 8);
  bytes.writeBigUInt64BE(BigInt(bitmapsAt), extensionAt + 16);
  bytes.writeBigUInt64BE(BigInt(bitmapTableAt), bitmapsAt);
  bytes.writeUInt32BE(1, bitmapsAt + 8);
  bytes.writeUInt8(1, bitmapsAt + 16); // dirty tracking
  bytes.writeUInt8(16, bitmapsAt + 17); // granularity
  bytes.writeUInt16BE(4, bitmapsAt + 18);
  bytes.write('dirt', bitmapsAt + 24);
  bytes.writeBigUInt64BE(BigInt(bitmapTableAt + clusterBytes), bitmapTableAt);
  return { ...image, bytes, bitmapsAt, bitmapTableAt };
}

/** Whose data are in another file, each where the disk has it. */
function withDataFile(): Fuzzed {
  const image = qcow2Bytes({
    clusterBits: 12,
    sizeBytes: guestClusters * 4096,
    incompatible: 4n,
    clusters: new Map<number, Cluster>([
      [0, { kind: 'zero' }],
      [1, { kind: 'zero' }],
    ]),
    extensions: [[DATA_FILE_NAME, Buffer.from('data.raw')]],
  });
  for (const cluster of [0, 1, 9]) {
    image.bytes.writeBigUInt64BE((1n << 63n) | BigInt(cluster * 4096), (image.l2At.get(0) ?? 0) + 8 * cluster);
  }
  return image;
}

const untouched = Buffer.alloc(70_000, 0xee);

/** Reads some of the disk, wherever it claims to be: correct data or EIO, and nothing beside what was asked for. */
function useAll(image: Image): void {
  const target = Buffer.alloc(untouched.length);
  const extent = emptyExtent();
  const step = Math.max(4096, Math.floor(image.sizeBytes / 50 / 512) * 512);
  for (let at = 0; at < image.sizeBytes; at += step) {
    const length = Math.min(60_000, image.sizeBytes - at);
    target.fill(0xee);
    expect([0, EIO]).toContain(image.read(at, length, target, 5));
    expect(target.compare(untouched, 0, 5, 0, 5)).toBe(0);
    expect(target.compare(untouched, 5 + length, target.length, 5 + length)).toBe(0);
    expect([0, EIO]).toContain(image.cache(at, length));
    const errno = image.status(at, length, extent);
    expect([0, EIO]).toContain(errno);
    if (errno !== 0) continue;
    expect(extent.lengthBytes).toBeGreaterThan(0);
    expect(extent.lengthBytes).toBeLessThanOrEqual(length);
  }
}

/** What a write may answer: the tables may send it anywhere. */
const WRITE_ERRNOS = [0, EIO, EFBIG, ENOSPC];

/** Changes some of the disk: what a write has put there is there, and reads go on whatever has failed. */
function changeSome(image: Image): void {
  const clusterBytes = 4096;
  const source = Buffer.alloc(clusterBytes, 0x5a);
  const target = Buffer.alloc(clusterBytes);
  for (const cluster of [0, 1, 3, 2, 9, 20, 39]) {
    const at = cluster * clusterBytes;
    if (at + clusterBytes > image.sizeBytes) break;
    const errno = image.write(at, clusterBytes, source, 0, cluster === 3);
    expect(WRITE_ERRNOS).toContain(errno);
    const readErrno = image.read(at, clusterBytes, target, 0);
    expect(errno === 0 ? [0] : [0, EIO]).toContain(readErrno);
    if (errno === 0) expect(target.equals(source)).toBe(true);
  }
  if (image.sizeBytes < 12 * clusterBytes) return;
  expect(WRITE_ERRNOS).toContain(image.zero(0, 3 * clusterBytes, 0, false));
  expect(WRITE_ERRNOS).toContain(image.zero(512, 6 * clusterBytes, ZERO_MAY_PUNCH, false));
  expect(WRITE_ERRNOS).toContain(image.trim(8 * clusterBytes, 4 * clusterBytes, false));
  for (let flush = 0; flush < 2; flush += 1) expect(WRITE_ERRNOS).toContain(image.flush());
}

function change(path: string): void {
  const opened = openImage(path, { readOnly: false });
  try {
    const image = imageFrom(opened.handle);
    try {
      changeSome(image);
    } finally {
      image.close();
    }
  } finally {
    opened.close();
  }
}

/** What a repair says that it has left is what a look finds then. */
function repair(path: string): void {
  for (const kind of ['leaks', 'all'] as const) {
    const left = checkImage(path, { format: 'qcow2', repair: kind }, watch);
    const found = checkImage(path, { format: 'qcow2', repair: undefined }, watch);
    const counts = ({ corruptions, leaks, checkErrors }: CheckResult) => ({ corruptions, leaks, checkErrors });
    if (left === 'raw' || found === 'raw') throw new Error('it is not raw');
    expect(counts(found)).toEqual(counts(left));
  }
}

const CODES = ['damaged', 'unsupported', 'missing', 'not-an-image', 'wrong-format', 'system'];

/** Does it, or finds a reason not to, without much time or memory. */
function tries(act: () => void): void {
  const begin = performance.now();
  const bytesBefore = process.memoryUsage.rss();
  try {
    act();
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    expect(CODES).toContain(error.code);
  }
  expect(performance.now() - begin).toBeLessThan(LIMIT_MS);
  expect(process.memoryUsage.rss() - bytesBefore).toBeLessThan(ADDED_BYTES_MAX);
}

const kinds: Record<string, () => Fuzzed> = {
  plain: () => original(false),
  subclusters: () => original(true),
  'a snapshot': () => withSnapshot(original(false)),
  'a bitmap': withBitmap,
  'a data file': withDataFile,
};

function makeOthers(): void {
  writeFileSync(inFolder('base.raw'), Buffer.alloc(100_000, 3));
  writeFileSync(inFolder('data.raw'), Buffer.alloc(guestClusters * 4096, 4));
}

test.each(Object.keys(kinds))('what is to be fuzzed has no errors itself: %s', (kind) => {
  const path = inFolder('a.qcow2');
  makeOthers();
  writeFileSync(path, kinds[kind]?.().bytes ?? '');
  const sound = { corruptions: 0, leaks: 0, checkErrors: 0 };
  expect(checkImage(path, { repair: undefined }, watch)).toMatchObject(sound);
  change(path);
  // What was a bitmap is out of date then, and its clusters are anybody's.
  const leaks = kind === 'a bitmap' ? 3 : 0;
  expect(checkImage(path, { repair: undefined }, watch)).toMatchObject({ ...sound, leaks });
});

test.each(Object.keys(kinds))(
  'whatever an image says, it is refused, or read, written, checked and repaired: %s',
  (kind) => {
    const path = inFolder('a.qcow2');
    makeOthers();
    const image = kinds[kind]?.() ?? original(false);
    fc.assert(
      fc.property(
        fc.array(mutation, { minLength: 1, maxLength: 4 }),
        fc.option(fc.nat(image.bytes.length), { freq: 6 }),
        fc.nat(WRITES - 1),
        (mutations, cut, turn) => {
          const changed = { ...image, bytes: Buffer.from(image.bytes) };
          apply(changed, mutations);
          const bytes = changed.bytes.subarray(0, cut === null ? image.bytes.length : Math.max(1, cut));
          writeFileSync(path, bytes);
          tries(() => withImage(path, useAll));
          tries(() => describeChain(path, {}));
          if (turn !== 0) return;
          tries(() => change(path));
          if (statSync(path).size < CHECKED_BYTES_MAX) tries(() => repair(path));
          writeFileSync(path, bytes);
          tries(() => repair(path));
        },
      ),
      { numRuns: runs, seed: 11 },
    );
  },
);
