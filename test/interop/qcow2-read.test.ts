import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { checkAsJson } from '#tsnbd/cli/check-report.js';
import { checkImage } from '#tsnbd/image/check-image.js';
import { emptyExtent, type Image } from '#tsnbd/image/image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import type { CheckResult } from '#tsnbd/image/qcow2/check-qcow2.js';
import { IMAGE_RECIPES } from './qcow2-images.js';

let folder: string;
let before: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-qcow2-'));
  before = process.cwd();
  process.chdir(folder); // QEMU 7.2 looks for a data file in the process's folder
});
afterEach(() => {
  process.chdir(before);
  rmSync(folder, { recursive: true });
});

/** Writes the disk into a raw file: what block status calls zeroes is left out, and so must be zeroes. */
function copyOut(image: Image, path: string): void {
  const extent = emptyExtent();
  const piece = Buffer.alloc(1 << 20);
  const fd = openSync(path, 'w');
  for (let at = 0; at < image.sizeBytes; at += extent.lengthBytes) {
    expect(image.status(at, Math.min(piece.length, image.sizeBytes - at), extent)).toBe(0);
    if (extent.zero && image.sizeBytes > 2 ** 30) extent.lengthBytes = skipZeroes(image, at);
    else if (!extent.zero) {
      expect(image.read(at, extent.lengthBytes, piece, 0)).toBe(0);
      writeSync(fd, piece, 0, extent.lengthBytes, at);
    }
  }
  closeSync(fd);
  execFileSync('truncate', ['-s', String(image.sizeBytes), path]);
}

function skipZeroes(image: Image, at: number): number {
  const extent = emptyExtent();
  expect(image.status(at, image.sizeBytes - at, extent)).toBe(0);
  expect(extent.zero).toBe(true);
  return extent.lengthBytes;
}

it('there are at least 40 images, of different names', () => {
  expect(new Set(IMAGE_RECIPES.map(({ name }) => name)).size).toBe(IMAGE_RECIPES.length);
  expect(IMAGE_RECIPES.length).toBeGreaterThanOrEqual(40);
});

it.each(IMAGE_RECIPES)('what QEMU writes is what we read and find in order: $name', ({ make }) => {
  make(folder);
  const path = join(folder, 'disk.qcow2');
  const opened = openImage(path, { readOnly: true });
  const image = imageFrom(structuredClone(opened.handle));
  copyOut(image, join(folder, 'ours.raw'));
  image.close();
  opened.close();
  expect(statSync(join(folder, 'ours.raw')).size).toBe(image.sizeBytes);
  const compared = execFileSync('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', 'ours.raw', path], {
    cwd: folder,
    encoding: 'utf8',
  });
  expect(compared).toBe('Images are identical.\n');
  const checked = execFileSync('qemu-img', ['check', '--output=json', path], { cwd: folder, encoding: 'utf8' });
  const watch = { onFinding: (text: string) => expect(text).toBe(''), onProgress: () => {} };
  const result = checkImage(path, { repair: undefined }, watch) as CheckResult;
  expect(JSON.parse(checkAsJson(path, result))).toEqual(JSON.parse(checked));
  if (image.sizeBytes > 2 ** 30) return;
  execFileSync('qemu-img', ['convert', '-O', 'raw', path, 'theirs.raw'], { cwd: folder });
  const theirs = readFileSync(join(folder, 'theirs.raw'));
  expect(readFileSync(join(folder, 'ours.raw')).equals(theirs)).toBe(true);
});
