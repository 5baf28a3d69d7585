import { readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { afterEach, expect, it } from 'vitest';
import { ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { imageFrom, type OpenedImage, openImage } from '#tsnbd/image/open-image.js';
import { useTemporaryFolder } from './temporary-folder.js';

const { EPERM } = constants.errno;
const inFolder = useTemporaryFolder();
let opened: OpenedImage | undefined;
afterEach(() => opened?.close());

function open(format?: 'raw') {
  const path = inFolder('disk.raw');
  writeFileSync(path, Buffer.alloc(4096, 0x55));
  opened = openImage(path, { format, readOnly: false });
  return { path, image: imageFrom(opened.handle) };
}

const qcow2 = Buffer.concat([Buffer.from('QFI\xfb\0\0\0\x03', 'latin1'), Buffer.alloc(504)]);

it('a guest cannot turn an image of a guessed format into a qcow2', () => {
  const { path, image } = open();
  expect(image.write(0, 512, qcow2, 0, false)).toBe(EPERM);
  expect(image.write(0, 8, qcow2, 0, false)).toBe(EPERM);
  expect(image.write(0, 3, qcow2, 0, false)).toBe(0);
  expect(image.write(3, 1, qcow2, 3, false)).toBe(EPERM);
  expect(image.write(2, 500, qcow2, 2, true)).toBe(EPERM);
  expect(readFileSync(path).subarray(0, 5).toString('latin1')).toBe('QFIUU');
});

it('nor into a vdi, whose magic stands further on', () => {
  const { image } = open();
  expect(image.write(64, 4, Buffer.from([0x7f, 0x10, 0xda, 0xbe]), 0, false)).toBe(EPERM);
});

it('nor by zeroes, which some formats have in their first bytes', () => {
  const { path, image } = open();
  expect(image.write(0, 4, Buffer.from('QEDx'), 0, false)).toBe(0);
  for (const ways of [ZERO_MAY_PUNCH, 0]) expect(image.zero(3, 1, ways, false)).toBe(EPERM);
  expect(image.trim(3, 509, true)).toBe(EPERM);
  expect(readFileSync(path).subarray(0, 4).toString()).toBe('QEDx');
  expect(image.zero(0, 4096, ZERO_MAY_PUNCH, false)).toBe(0);
});

it('everything else is written as it is', () => {
  const { path, image } = open();
  expect(image.write(512, 512, qcow2, 0, false)).toBe(0);
  expect(image.write(1, 511, qcow2, 0, false)).toBe(0);
  expect(image.write(0, 4096, Buffer.alloc(4106, 9), 10, true)).toBe(0);
  expect(readFileSync(path).equals(Buffer.alloc(4096, 9))).toBe(true);
  expect(image.zero(0, 100, ZERO_MAY_PUNCH, false)).toBe(0);
  expect(image.trim(2048, 2048, false)).toBe(0);
  expect(image.flush()).toBe(0);
  const target = Buffer.alloc(200);
  expect(image.read(0, 200, target, 0)).toBe(0);
  expect(target.equals(Buffer.concat([Buffer.alloc(100), Buffer.alloc(100, 9)]))).toBe(true);
  image.close();
});

it('a user who says -f raw may let the guest write what it likes', () => {
  const { path, image } = open('raw');
  expect(image.write(0, 512, qcow2, 0, true)).toBe(0);
  expect(readFileSync(path).subarray(0, 512).equals(qcow2)).toBe(true);
});

it('says so when it opens the image', () => {
  open();
  expect(opened?.notices.join()).toContain('say -f raw if it is');
  opened?.close();
  open('raw');
  expect(opened?.notices).toEqual([]);
});
