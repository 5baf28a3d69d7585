import { readFileSync, writeFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { invariant } from '#tsnbd/base/invariant.js';
import { checkImage } from '#tsnbd/image/check-image.js';
import { type Image, ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { finishWriting } from '#tsnbd/image/qcow2/open-writable.js';
import { long } from '../../long.js';
import { seeded } from '../../server/seeded.js';
import { useTemporaryFolder } from '../temporary-folder.js';
import { readAll, withFewSlices, withImage } from './open-qcow2.js';
import { BACKING_FORMAT, type Cluster, DATA_FILE_NAME, qcow2Bytes, type Wish } from './qcow2-bytes.js';

const inFolder = useTemporaryFolder();
const OPERATIONS = long ? 5_000 : 300;
const SECTOR = 512;
const watch = { onFinding: () => {}, onProgress: () => {} };

const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});

/** The first clusters are data and a compressed one. */
function imageFile(wish: Omit<Wish, 'clusterBits'> & { readonly clusterBits: number }): string {
  const bytes = new Uint8Array(2 ** wish.clusterBits).fill(3);
  const clusters = new Map<number, Cluster>([
    [0, { kind: 'data', bytes }],
    [1, { kind: 'compressed', bytes }],
  ]);
  const path = inFolder('disk.qcow2');
  writeFileSync(path, qcow2Bytes({ clusters, ...wish }).bytes);
  return path;
}

/** Has workers take turns with an image, and answers what its disk is to be then. */
function workOn(images: readonly Image[], seed: number): Buffer {
  const [first] = images;
  invariant(first !== undefined, 'somebody works');
  const model = readAll(first);
  const random = seeded(seed);
  for (let done = 0; done < OPERATIONS; done += 1) {
    const image = images[random(images.length)] ?? first;
    const length = SECTOR * (1 + random(random(5) === 0 ? 500 : 30));
    const offset = SECTOR * random((model.length - length) / SECTOR);
    const kind = random(10);
    if (kind < 5) {
      const source = Buffer.alloc(length, 1 + random(255));
      expect(image.write(offset, length, source, 0, kind === 4)).toBe(0);
      source.copy(model, offset);
    } else if (kind === 5) {
      expect(image.zero(offset, length, random(2) === 0 ? ZERO_MAY_PUNCH : 0, false)).toBe(0);
      model.fill(0, offset, offset + length);
    } else if (kind === 6) {
      expect(image.trim(offset, length, false)).toBe(0);
      expect(image.read(offset, length, model, offset)).toBe(0); // zeroes, or what it was
    } else if (kind === 7) expect(image.flush()).toBe(0);
    else {
      const target = Buffer.alloc(length, 0xee);
      expect(image.read(offset, length, target, 0)).toBe(0);
      expect(target.equals(model.subarray(offset, offset + length))).toBe(true);
    }
  }
  return model;
}

describe('an image of which little fits into memory is what was written, and has no errors:', () => {
  it.each<[string, Omit<Wish, 'sizeBytes'> & { readonly clusterBits: number }, number, number]>([
    ['clusters of 512', { clusterBits: 9 }, 4 << 20, 16],
    ['clusters of 512 on a backing file', { clusterBits: 9, backing: 'base.raw' }, 4 << 20, 16],
    ['version 2', { clusterBits: 12, version: 2 }, 32 << 20, 4],
    ['subclusters on a backing file', { clusterBits: 14, incompatible: 16n, backing: 'base.raw' }, 64 << 20, 4],
  ])('%s', (_, wish, sizeBytes, slots) => {
    writeFileSync(inFolder('base.raw'), Buffer.alloc(3 << 20, 77));
    const path = imageFile({ sizeBytes, extensions: [[BACKING_FORMAT, Buffer.from('raw')]], ...wish });
    const opened = openImage(path, { readOnly: false });
    const small = withFewSlices(opened.handle, slots);
    expect(small.geometry.slices).toBeGreaterThan(2 * slots);
    const images = [0, 1, 2].map(() => imageFrom(small));
    const model = workOn(images, 3);
    for (const image of images) expect(readAll(image).equals(model)).toBe(true);
    for (const image of images) image.close();
    finishWriting(path, small);
    opened.close();
    expect(checkImage(path, { repair: undefined }, watch)).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    withImage(path, (image) => expect(readAll(image).equals(model)).toBe(true));
  });
});

it.each([
  ['clusters of 4096', 12, 0n],
  ['subclusters', 14, 16n],
])('a raw data file is the disk by itself, whatever was done to the image: %s', (_, clusterBits, features) => {
  const sizeBytes = 4 << 20;
  writeFileSync(inFolder('data.raw'), Buffer.alloc(sizeBytes));
  const path = imageFile({
    clusterBits,
    sizeBytes,
    incompatible: 4n | features,
    autoclear: 2n,
    clusters: new Map(),
    extensions: [[DATA_FILE_NAME, Buffer.from(inFolder('data.raw'))]],
  });
  const opened = openImage(path, { readOnly: false });
  undo.push(() => opened.close());
  const images = [0, 1].map(() => imageFrom(opened.handle));
  for (const image of images) undo.push(() => image.close());
  for (let seed = 1; seed <= 3; seed += 1) {
    const model = workOn(images, seed);
    expect(readFileSync(inFolder('data.raw')).equals(model)).toBe(true);
  }
  expect(images[0]?.flush()).toBe(0);
  expect(readFileSync(path).readBigUInt64BE(88)).toBe(2n);
});
