import { closeSync, openSync, readSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { createImage } from '#tsnbd/image/create-image.js';
import { type FileCalls, fileCalls } from '#tsnbd/image/file-calls.js';
import { type Image, ZERO_FAST, ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { PUNCH_HOLE } from '#tsnbd/kernel/fd-calls.js';
import { useTemporaryFolder } from './temporary-folder.js';

const inFolder = useTemporaryFolder();
const quiet = { stop: new AbortController().signal, onBegin: () => {}, onProgress: () => {} };
const plain = {
  format: 'qcow2',
  version: 3,
  clusterBytes: 65_536,
  refcountBits: 16,
  extendedL2: false,
  lazyRefcounts: false,
  compression: 'zlib',
  preallocation: 'off',
  backing: undefined,
} as const;
const sizeBytes = 20 * 2 ** 30;
const { clusterBytes } = plain;
/** As far as ext4 with blocks of 1 KiB punches. */
const LIMIT = 2 ** 34 + 2 ** 26;

const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});

/** PUNCH_HOLE as by ext4 before Linux 6.16, and the modes that were asked for. */
function lying(): { readonly calls: FileCalls; readonly modes: number[] } {
  const modes: number[] = [];
  const fallocate: FileCalls['fallocate'] = (fd, mode, offsetBytes, length) => {
    modes.push(mode);
    const punched = Math.min(length, LIMIT - offsetBytes);
    if (mode !== PUNCH_HOLE) return fileCalls.fallocate(fd, mode, offsetBytes, length);
    return punched <= 0 ? 0 : fileCalls.fallocate(fd, mode, offsetBytes, punched);
  };
  return { calls: { ...fileCalls, fallocate }, modes };
}

function open(path: string, format: 'raw' | 'qcow2', calls: FileCalls): Image {
  const opened = openImage(path, { format, readOnly: false });
  const image = imageFrom(opened.handle, calls);
  undo.push(
    () => opened.close(),
    () => image.close(),
  );
  return image;
}

/** As another program reads the file, each kind of byte once. */
function bytesAt(path: string, offsetBytes: number): readonly number[] {
  const target = new Uint8Array(2 * clusterBytes);
  const fd = openSync(path, 'r');
  expect(readSync(fd, target, 0, target.length, offsetBytes)).toBe(target.length);
  closeSync(fd);
  return [...new Set(target)];
}

const places = [
  ['behind the limit', 2 ** 34 + 2 ** 30],
  ['across it', LIMIT - clusterBytes],
] as const;

test.each(places)('zeroes of a raw image that are not punched, %s, are there all the same', async (_, offset) => {
  const path = inFolder('disk.raw');
  await createImage({ path, sizeBytes, form: { format: 'raw', preallocation: 'off' } }, quiet);
  const { calls, modes } = lying();
  const image = open(path, 'raw', calls);
  const data = new Uint8Array(2 * clusterBytes).fill(7);
  for (const ways of [ZERO_MAY_PUNCH, ZERO_MAY_PUNCH | ZERO_FAST]) {
    expect(image.write(offset, data.length, data, 0, false)).toBe(0);
    expect(image.zero(offset, data.length, ways, false)).toBe(0);
    expect(bytesAt(path, offset)).toEqual([0]);
  }
  modes.length = 0;
  expect(image.write(2 ** 33, data.length, data, 0, false)).toBe(0);
  expect(image.zero(2 ** 33, data.length, ZERO_MAY_PUNCH, false)).toBe(0);
  expect(bytesAt(path, 2 ** 33)).toEqual([0]);
  expect(modes).toEqual([PUNCH_HOLE]);
});

test.each(places)(
  "zeroes of an image's raw data file that are not punched, %s, are there all the same",
  async (_, offset) => {
    const path = inFolder('disk.qcow2');
    const dataFile = { name: 'data.raw', isRaw: true };
    await createImage({ path, sizeBytes, form: { ...plain, dataFile } }, quiet);
    const image = open(path, 'qcow2', lying().calls);
    const data = new Uint8Array(2 * clusterBytes).fill(7);
    expect(image.write(offset, data.length, data, 0, false)).toBe(0);
    expect(image.zero(offset, data.length, ZERO_MAY_PUNCH, false)).toBe(0);
    expect(image.flush()).toBe(0);
    expect(bytesAt(inFolder('data.raw'), offset)).toEqual([0]);
  },
);
