import { copyFileSync, writeFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { fileCalls } from '#tsnbd/image/file-calls.js';
import { type Image, ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { type Change, recordingCalls, replay } from '../../interop/recorded-calls.js';
import { useTemporaryFolder } from '../temporary-folder.js';
import { readAll, withImage } from './open-qcow2.js';
import { BACKING_FORMAT, type Cluster, DATA_FILE_NAME, qcow2Bytes, type Wish } from './qcow2-bytes.js';

const inFolder = useTemporaryFolder();
const clusterBytes = 16_384;
const CLUSTERS = 8;
const data = (byte: number): Cluster => ({ kind: 'data', bytes: new Uint8Array(clusterBytes).fill(byte) });

const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});

/** The first clusters are data, one of them compressed. */
function imageFile(wish: Partial<Wish>): string {
  writeFileSync(inFolder('base.raw'), Buffer.alloc(CLUSTERS * clusterBytes, 77));
  writeFileSync(inFolder('data.raw'), Buffer.alloc(CLUSTERS * clusterBytes));
  const compressed: Cluster = { kind: 'compressed', bytes: new Uint8Array(clusterBytes).fill(3) };
  const { bytes } = qcow2Bytes({
    clusterBits: 14,
    sizeBytes: CLUSTERS * clusterBytes,
    clusters: new Map([data(1), data(2), compressed, data(4)].map((cluster, guest) => [guest, cluster])),
    ...wish,
  });
  const path = inFolder('disk.qcow2');
  writeFileSync(path, bytes);
  return path;
}

function open(path: string, calls = fileCalls): Image {
  const opened = openImage(path, { readOnly: false });
  undo.push(() => opened.close());
  const image = imageFrom(opened.handle, calls);
  undo.push(() => image.close());
  return image;
}

const written = Buffer.alloc(2 * clusterBytes, 9);
const acts: readonly (readonly [string, (image: Image) => number])[] = [
  ['a write in its place', (image) => image.write(512, 1024, written, 0, true)],
  ['a write to clusters of its own', (image) => image.write(2 * clusterBytes + 512, clusterBytes, written, 0, true)],
  ['a write to new clusters', (image) => image.write(5 * clusterBytes, 2 * clusterBytes, written, 0, true)],
  ['zeroes', (image) => image.zero(clusterBytes - 512, clusterBytes + 1024, ZERO_MAY_PUNCH, true)],
  ['zeroes that keep their storage', (image) => image.zero(0, 2 * clusterBytes, 0, true)],
  ['a trim', (image) => image.trim(0, 2 * clusterBytes, true)],
];

describe.each<[string, Partial<Wish>]>([
  ['of its own', {}],
  ['of version 2', { version: 2 }],
  ['with subclusters', { incompatible: 16n }],
  ['with a backing file', { backing: 'base.raw', extensions: [[BACKING_FORMAT, Buffer.from('raw')]] }],
])('after FUA a power cut leaves, in an image %s,', (_, wish) => {
  it.each(acts)('%s', (_name, act) => {
    const changes: Change[] = [];
    const path = imageFile(wish);
    const original = inFolder('original.qcow2');
    copyFileSync(path, original);
    const image = open(path, recordingCalls(changes));
    expect(act(image)).toBe(0);
    const answered = changes.length;
    expect(answered).toBeGreaterThan(0);
    const disk = readAll(image);
    replay(original, inFolder('cut.qcow2'), changes, answered, () => false);
    withImage(inFolder('cut.qcow2'), (left) => expect(readAll(left).equals(disk)).toBe(true));
  });
});

it.each(acts)('in an image with a data file both files are synced after FUA: %s', (name, act) => {
  const extensions = [[DATA_FILE_NAME, Buffer.from(inFolder('data.raw'))]] as const;
  const path = imageFile({ incompatible: 4n, clusters: new Map(), extensions });
  const unsynced = new Set<number>();
  let isSynced = false;
  const image = open(path, {
    ...fileCalls,
    write: (fd, ...call) => {
      unsynced.add(fd);
      return fileCalls.write(fd, ...call);
    },
    fallocate: (fd, ...call) => {
      unsynced.add(fd);
      return fileCalls.fallocate(fd, ...call);
    },
    sync: (fd) => {
      unsynced.delete(fd);
      isSynced = true;
      return fileCalls.sync(fd);
    },
  });
  expect(image.write(0, 2 * clusterBytes, written, 0, true)).toBe(0);
  isSynced = false;
  expect(act(image)).toBe(0);
  expect([name, isSynced, [...unsynced]]).toEqual([name, true, []]);
});
