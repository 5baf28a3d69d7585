import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { makeHoleyDisk } from './holey-disk.js';
import { runTsnbd, succeed } from './served.js';

let folder: string;
let image: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-image-tools-'));
  image = join(folder, 'disk.raw');
});
afterEach(() => rmSync(folder, { recursive: true }));

const json = async (text: Promise<string>) => JSON.parse(await text);
const tsnbd = async (...args: string[]) => {
  const { status, stdout, stderr } = await runTsnbd(...args);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
};

describe('an image', () => {
  test('is described as qemu-img does', async () => {
    makeHoleyDisk(image);
    expect(await tsnbd('info', image)).toBe(await succeed('qemu-img', 'info', '-f', 'raw', image));
    expect(await json(tsnbd('info', '--json', image))).toEqual(
      await json(succeed('qemu-img', 'info', '-f', 'raw', '--output=json', image)),
    );
  });

  test.each([512, 1_024_000, 1_048_576, 1_500_160, 123_456_789_504, 5 * 2 ** 40])(
    'of %i bytes has the size that qemu-img shows',
    async (bytes) => {
      writeFileSync(image, '');
      truncateSync(image, bytes);
      expect(await tsnbd('info', image)).toBe(await succeed('qemu-img', 'info', '-f', 'raw', image));
    },
  );

  test('of another format is said to be one', async () => {
    await succeed('qemu-img', 'create', '-q', '-f', 'vmdk', image, '1M');
    for (const command of ['info', 'map']) {
      expect(await runTsnbd(command, image)).toMatchObject({
        status: 6,
        stdout: '',
        stderr: expect.stringContaining('is a vmdk image'),
      });
    }
    expect(await tsnbd('info', '-f', 'raw', image)).toBe(await succeed('qemu-img', 'info', '-f', 'raw', image));
  });

  test('is mapped as qemu-img does', async () => {
    makeHoleyDisk(image);
    expect(await json(tsnbd('map', '--json', image))).toEqual(
      await json(succeed('qemu-img', 'map', '-f', 'raw', '--output=json', image)),
    );
    expect(await tsnbd('map', image)).toMatch(/^ {9}0 {7}65536 {4}0 {2}data\n {5}65536 {7}65536 {4}3 {2}hole,zero\n/);
    const picture = join(folder, 'map.svg');
    expect(await tsnbd('map', '--svg', picture, image)).toBe('');
    expect(readFileSync(picture, 'utf8')).toContain('>data: 4.32 MiB<');
  });

  test('is not drawn where nobody can write', async () => {
    makeHoleyDisk(image);
    expect(await runTsnbd('map', '--svg', join(folder, 'none', 'map.svg'), image)).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^tsnbd: cannot write .*map\.svg: .*\(ENOENT\)\n$/),
    });
  });
});
