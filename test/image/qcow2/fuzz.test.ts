import { writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ImageError } from '#tsnbd/image/errors.js';
import { emptyExtent, type Image } from '#tsnbd/image/image.js';
import { long } from '../../long.js';
import { useTemporaryFolder } from '../temporary-folder.js';
import { withImage } from './open-qcow2.js';
import { BACKING_FORMAT, type Cluster, FEATURE_NAMES, type Qcow2Bytes, qcow2Bytes } from './qcow2-bytes.js';

const { EIO } = constants.errno;
const inFolder = useTemporaryFolder();
const runs = long ? 100_000 : 400;
const guestClusters = 40;
/** A read that takes longer hangs: most take microseconds. */
const LIMIT_MS = 5_000;

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
  where: fc.constantFrom('header', 'header', 'extensions', 'l1', 'l2', 'l2', 'data', 'bit'),
  index: fc.nat(10_000),
  value,
});

function apply(
  { bytes, l1At, l2At, extensionsAt }: Qcow2Bytes,
  mutations: readonly (typeof mutation extends fc.Arbitrary<infer T> ? T : never)[],
): void {
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
    else if (where === 'data') put(index % bytes.length, 1);
    else bytes[index % bytes.length] = (bytes[index % bytes.length] ?? 0) ^ (1 << Number(value % 8n));
  }
}

function original(extended: boolean): Qcow2Bytes {
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
    clusters,
    backing: 'base.raw',
    extensions: [
      [FEATURE_NAMES, Buffer.alloc(96, 'name')],
      [BACKING_FORMAT, Buffer.from('raw')],
      [0x7e577e57, Buffer.alloc(20)],
    ],
  });
}

/** Reads some of the disk, wherever it claims to be: correct data or EIO, and nothing beside what was asked for. */
function useAll(image: Image): void {
  const target = Buffer.alloc(70_000);
  const extent = emptyExtent();
  const step = Math.max(4096, Math.floor(image.sizeBytes / 50 / 512) * 512);
  for (let at = 0; at < image.sizeBytes; at += step) {
    const length = Math.min(60_000, image.sizeBytes - at);
    target.fill(0xee);
    expect([0, EIO]).toContain(image.read(at, length, target, 5));
    expect(target.subarray(0, 5).every((byte) => byte === 0xee)).toBe(true);
    expect(target.subarray(5 + length).every((byte) => byte === 0xee)).toBe(true);
    expect([0, EIO]).toContain(image.cache(at, length));
    const errno = image.status(at, length, extent);
    expect([0, EIO]).toContain(errno);
    if (errno !== 0) continue;
    expect(extent.lengthBytes).toBeGreaterThan(0);
    expect(extent.lengthBytes).toBeLessThanOrEqual(length);
  }
}

test.each([false, true])('whatever an image says, it is refused or read (subclusters: %s)', (extended) => {
  const path = inFolder('a.qcow2');
  writeFileSync(inFolder('base.raw'), Buffer.alloc(100_000, 3));
  const { bytes, ...places } = original(extended);
  fc.assert(
    fc.property(
      fc.array(mutation, { minLength: 1, maxLength: 4 }),
      fc.option(fc.nat(bytes.length), { freq: 6 }),
      (mutations, cut) => {
        const changed = { ...places, bytes: Buffer.from(bytes) };
        apply(changed, mutations);
        writeFileSync(path, changed.bytes.subarray(0, cut === null ? bytes.length : Math.max(1, cut)));
        const begin = performance.now();
        try {
          withImage(path, useAll);
        } catch (error) {
          if (!(error instanceof ImageError)) throw error;
          expect(['damaged', 'unsupported', 'missing', 'not-an-image', 'wrong-format', 'system']).toContain(error.code);
        }
        expect(performance.now() - begin).toBeLessThan(LIMIT_MS);
      },
    ),
    { numRuns: runs, seed: 11 },
  );
});
