import { execFileSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { emptyExtent } from '#tsnbd/image/image.js';
import { imageFrom, type OpenOptions, openImage } from '#tsnbd/image/open-image.js';

const DISK_BYTES = 64 << 20;
const SECTOR_BYTES = 512;

let folder: string;
let disk: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-part-'));
  disk = join(folder, 'disk.raw');
  writeFileSync(disk, '');
  truncateSync(disk, DISK_BYTES);
});
afterEach(() => rmSync(folder, { recursive: true }));

interface Row {
  readonly node: string;
  readonly start: number;
  readonly size: number;
}

/** Makes partitions as sfdisk does, and answers where it says that they lie. */
function partitioned(script: string): readonly Row[] {
  execFileSync('sfdisk', ['-q', disk], { input: script });
  return JSON.parse(execFileSync('sfdisk', ['--json', disk], { encoding: 'utf8' })).partitiontable.partitions;
}

function poke(offsetBytes: number, bytes: Uint8Array): void {
  const fd = openSync(disk, 'r+');
  writeSync(fd, bytes, 0, bytes.length, offsetBytes);
  closeSync(fd);
}

function opened(part: OpenOptions['part'], options: Partial<OpenOptions> = {}) {
  return openImage(disk, { format: 'raw', readOnly: true, part, ...options });
}

function partOf(number: number) {
  const image = opened({ kind: 'partition', number });
  image.close();
  return image.handle.part;
}

const GPT = 'label: gpt\nsize=10M\nsize=5M\nsize=1M\n';
/** Three of them primary, two in an extended one. */
const DOS = 'label: dos\nsize=10M\nsize=5M\nsize=30M,type=5\nsize=4M\nsize=3M,type=82\nsize=2M\n';

describe('a partition', () => {
  test.each([
    ['a GPT', GPT, [1, 2, 3]],
    ['an MBR', DOS, [1, 2, 4, 5, 6]],
  ])('of %s is where sfdisk says', (_name, script, numbers) => {
    const rows = partitioned(script);
    for (const number of numbers) {
      const row = rows.find(({ node }) => node === `${disk}${number}`);
      expect(partOf(number)).toEqual({
        offsetBytes: (row?.start ?? 0) * SECTOR_BYTES,
        sizeBytes: (row?.size ?? 0) * SECTOR_BYTES,
      });
    }
    expect(() => partOf(9)).toThrow(`${disk}: it has no partition 9; there are ${numbers.join(', ')}`);
  });

  test('of a disk in blocks of 4096 bytes counts in those', () => {
    execFileSync('fdisk', ['-b', '4096', disk], { input: 'g\nn\n1\n\n+5M\nn\n2\n\n+3M\nw\n', stdio: 'pipe' });
    const list = execFileSync('fdisk', ['-b', '4096', '-l', '-o', 'Start,Sectors', disk], { encoding: 'utf8' });
    const [start = 0, blocks = 0] = (list.trim().split('\n').at(-1) ?? '').trim().split(/ +/).map(Number);
    expect(blocks).toBe((3 << 20) / 4096);
    expect(partOf(2)).toEqual({ offsetBytes: start * 4096, sizeBytes: 3 << 20 });
  });

  test.each([
    ['without a table', () => {}, 'it has no partition table'],
    ['with a file system on all of it', () => execFileSync('mkfs.ext4', ['-q', disk]), 'it has no partition table'],
    [
      'with a boot sector of another kind',
      () => poke(446, Buffer.from(`${'code'.repeat(16)}U\xaa`, 'latin1')),
      'no partition table',
    ],
    [
      'whose GPT has another sum',
      () => {
        partitioned(GPT);
        poke(512 + 40, Buffer.of(99));
      },
      '(GPT) is damaged',
    ],
    [
      'whose GPT has other entries',
      () => {
        partitioned(GPT);
        poke(1024 + 40, Buffer.of(99));
      },
      '(GPT) is damaged',
    ],
    [
      'whose GPT has a header of 4 GiB',
      () => {
        partitioned(GPT);
        poke(512 + 12, Buffer.alloc(4, 255));
      },
      '(GPT) is damaged',
    ],
    [
      'that was cut off',
      () => {
        partitioned(DOS);
        truncateSync(disk, 12 << 20);
      },
      'it has no partition 7',
    ],
  ])('of a disk %s is refused', (_name, make, message) => {
    make();
    expect(() => partOf(7)).toThrow(message);
  });

  test('that ends beyond the disk, or lies in a chain without an end, is refused', () => {
    const rows = partitioned(DOS);
    poke(446 + 12, Buffer.alloc(4, 255));
    expect(() => partOf(1)).toThrow('its partition 1 ends beyond the disk');
    // The record of the first logical partition says that the next one is itself.
    const extended = rows.find(({ node }) => node === `${disk}3`)?.start ?? 0;
    poke(extended * SECTOR_BYTES + 446 + 16 + 8, Buffer.alloc(4));
    expect(() => partOf(9)).toThrow('its chain of partitions does not end');
    expect(readFileSync(disk)).toHaveLength(DISK_BYTES);
  });
});

describe('a part of a disk', () => {
  test('is read and written, zeroed, trimmed and mapped as a disk of its own', () => {
    const image = opened({ kind: 'offset', offsetBytes: 1 << 20 }, { readOnly: false });
    expect(image.sizeBytes).toBe(DISK_BYTES - (1 << 20));
    const part = imageFrom(image.handle);
    expect(part.sizeBytes).toBe(image.sizeBytes);
    const data = Buffer.alloc(8192, 7);
    expect(part.write(0, data.length, data, 0, true)).toBe(0);
    expect(part.write(65_536, 4096, data, 0, false)).toBe(0);
    const got = Buffer.alloc(8192);
    expect(part.read(0, 8192, got, 0)).toBe(0);
    expect(got.equals(data)).toBe(true);
    expect(part.zero(4096, 4096, 0, false)).toBe(0);
    expect(part.trim(65_536, 4096, false)).toBe(0);
    const extent = emptyExtent();
    expect(part.status(0, 1 << 20, extent)).toBe(0);
    expect(extent).toMatchObject({ hole: false, zero: false });
    expect(part.status(1 << 20, 1 << 20, extent)).toBe(0);
    expect(extent).toMatchObject({ hole: true, zero: true });
    part.close();
    image.close();
    const whole = readFileSync(disk);
    const expected = Buffer.alloc(DISK_BYTES);
    expected.fill(7, 1 << 20, (1 << 20) + 4096);
    expect(whole.equals(expected)).toBe(true);
  });

  test('is not there behind the end', () => {
    expect(() => opened({ kind: 'offset', offsetBytes: DISK_BYTES })).toThrow(`nothing is behind ${DISK_BYTES}`);
  });

  test('of an image whose format nobody named: its first sector is guarded where it is the first of the image', () => {
    const open = (offsetBytes: number) => openImage(disk, { readOnly: false, part: { kind: 'offset', offsetBytes } });
    for (const [offsetBytes, errno] of [
      [0, 1],
      [4096, 0],
    ] as const) {
      const image = open(offsetBytes);
      const part = imageFrom(image.handle);
      expect(part.write(0, 4, Buffer.from('QFI\xfb', 'latin1'), 0, false)).toBe(errno);
      part.close();
      image.close();
    }
  });
});
