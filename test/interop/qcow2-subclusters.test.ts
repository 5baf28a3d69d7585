import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Image, ZERO_FAST, ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { readAll, withImage } from '../image/qcow2/open-qcow2.js';

const { EOPNOTSUPP } = constants.errno;
const K = 1_024;
const CLUSTER = 64 * K;
const UNIT = CLUSTER / 32;
const SIZE = 16 * CLUSTER + 3 * UNIT;

let folder: string;
let before: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-subclusters-'));
  before = process.cwd();
  process.chdir(folder); // QEMU 7.2 looks for a data file in the process's folder
});
afterEach(() => {
  process.chdir(before);
  rmSync(folder, { recursive: true });
});

const run = (program: string, ...args: string[]) => execFileSync(program, args, { cwd: folder, encoding: 'utf8' });
const clusters = (image: string) => Math.ceil(statSync(image).size / CLUSTER);
const qemuIo = (image: string, ...commands: string[]) =>
  run('qemu-io', image, ...commands.flatMap((command) => ['-c', command]));

interface Mapped {
  readonly start: number;
  readonly length: number;
  readonly data: boolean;
  readonly zero: boolean;
  readonly depth: number;
  readonly offset?: number;
}

/** What `qemu-img map` says of `disk.qcow2`; of zeroes not where they could be stored, and not who made them. */
function map(): readonly Mapped[] {
  const told = JSON.parse(run('qemu-img', 'map', '--output=json', 'disk.qcow2')) as readonly Mapped[];
  const pieces: Mapped[] = [];
  for (const { start, length, data, zero, depth, offset } of told) {
    const last = pieces.at(-1);
    if (last?.zero && zero && !data && !last.data) pieces.splice(-1, 1, { ...last, length: last.length + length });
    else pieces.push({ start, length, data, zero, depth, ...(data && offset !== undefined ? { offset } : {}) });
  }
  return pieces;
}

/** Clusters 0 to 7 have data, and some of 8 to 11; 12 and 13 have nothing, and behind them is a part of a cluster. */
function make(options = '', ...backing: string[]): void {
  const all = `extended_l2=on${options}`;
  run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', all, ...backing, 'disk.qcow2', String(SIZE));
  qemuIo('disk.qcow2', 'write -P 1 0 512k', 'write -P 2 526k 20k', 'write -P 3 600k 100k', 'write -P 4 1028k 1k');
}

function withOurs(act: (image: Image) => void): void {
  const opened = openImage('disk.qcow2', { readOnly: false });
  const image = imageFrom(opened.handle);
  act(image);
  image.close();
  opened.close();
}

/** Whole subclusters: within a cluster, across clusters, of clusters that have some, nothing, and at the disk's end. */
const RANGES = [
  [4 * K, 2 * K],
  [CLUSTER, 62 * K],
  [2 * CLUSTER + 60 * K, 8 * K],
  [4 * CLUSTER + 30 * K, 2 * CLUSTER],
  [512 * K, 30 * K],
  [640 * K, 100 * K],
  [12 * CLUSTER + 6 * K, 10 * K],
  [16 * CLUSTER + UNIT, 2 * UNIT],
] as const;

describe('zeroes of whole subclusters are a change of their entry alone, as they are for QEMU:', () => {
  it.each<[string, () => void]>([
    ['an image', () => make()],
    ['subclusters of a preallocated image', () => make(',preallocation=metadata')],
    [
      'an image on a backing file',
      () => {
        run('qemu-img', 'create', '-q', '-f', 'raw', 'base.raw', String(14 * CLUSTER));
        run('qemu-io', '-f', 'raw', '-c', `write -P 9 0 ${14 * CLUSTER}`, 'base.raw');
        make('', '-b', 'base.raw', '-F', 'raw');
      },
    ],
    [
      'an image with a snapshot',
      () => {
        make();
        run('qemu-img', 'snapshot', '-c', 'one', 'disk.qcow2');
      },
    ],
    ['an image with a data file', () => make(',data_file=data.raw')],
  ])('%s', (name, prepare) => {
    prepare();
    const disk = run('sha256sum', 'disk.qcow2');
    copyFileSync('disk.qcow2', 'before.qcow2');
    for (const ways of [0, ZERO_MAY_PUNCH, ZERO_MAY_PUNCH | ZERO_FAST]) {
      copyFileSync('before.qcow2', 'disk.qcow2');
      expect(run('sha256sum', 'disk.qcow2')).toBe(disk);
      const unmap = ways === 0 ? '' : '-u ';
      qemuIo('disk.qcow2', ...RANGES.map(([offsetBytes, length]) => `write -z ${unmap}${offsetBytes} ${length}`));
      const theirMap = map();
      run('qemu-img', 'convert', '-O', 'raw', 'disk.qcow2', 'their.raw');
      copyFileSync('before.qcow2', 'disk.qcow2');
      withOurs((image) => {
        for (const [offsetBytes, length] of RANGES) expect(image.zero(offsetBytes, length, ways, false)).toBe(0);
        expect(readAll(image).equals(readFileSync('their.raw'))).toBe(true);
      });
      expect(map()).toEqual(theirMap);
      expect(run('qemu-img', 'check', 'disk.qcow2')).toMatch(/^No errors/);
      expect(run('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', 'their.raw', 'disk.qcow2')).toMatch(/identical/);
      // A snapshot's table is copied, and no data.
      const grown = clusters('disk.qcow2') - clusters('before.qcow2');
      expect(grown).toBe(name.includes('snapshot') ? 1 : 0);
    }
    if (!name.includes('snapshot')) return;
    run('qemu-img', 'convert', '-O', 'raw', 'before.qcow2', 'before.raw');
    run('qemu-img', 'convert', '-l', 'one', '-O', 'raw', 'disk.qcow2', 'one.raw');
    expect(readFileSync('one.raw').equals(readFileSync('before.raw'))).toBe(true);
  });
});

it('what is written to subclusters that are zeroes has zeroes around it, whatever their storage held', () => {
  make();
  withOurs((image) => {
    const model = readAll(image);
    expect(image.zero(8 * K, 16 * K, 0, false)).toBe(0);
    model.fill(0, 8 * K, 24 * K);
    expect(image.write(11 * K, 512, Buffer.alloc(512, 7), 0, false)).toBe(0);
    model.fill(7, 11 * K, 11 * K + 512);
    expect(readAll(image).equals(model)).toBe(true);
  });
  expect(run('qemu-img', 'check', 'disk.qcow2')).toMatch(/^No errors/);
  run('qemu-img', 'convert', '-O', 'raw', 'disk.qcow2', 'their.raw');
  withImage('disk.qcow2', (image) => expect(readAll(image).equals(readFileSync('their.raw'))).toBe(true));
});

it('a part of a compressed cluster cannot become zeroes by its entry, and so not fast', () => {
  make();
  run('qemu-img', 'convert', '-c', '-O', 'qcow2', '-o', 'extended_l2=on', 'disk.qcow2', 'packed.qcow2');
  copyFileSync('packed.qcow2', 'disk.qcow2');
  withOurs((image) => {
    const model = readAll(image);
    const zero = (offsetBytes: number, length: number, ways: number) => image.zero(offsetBytes, length, ways, false);
    expect(zero(4 * K, 2 * K, ZERO_FAST)).toBe(EOPNOTSUPP);
    expect(zero(60 * K, 68 * K, ZERO_FAST)).toBe(EOPNOTSUPP);
    expect(zero(64 * K, 66 * K, ZERO_FAST)).toBe(EOPNOTSUPP);
    expect(readAll(image).equals(model)).toBe(true);
    expect(zero(4 * K, 2 * K, ZERO_MAY_PUNCH)).toBe(0);
    expect(zero(124 * K, 136 * K, 0)).toBe(0);
    model.fill(0, 4 * K, 6 * K).fill(0, 124 * K, 260 * K);
    expect(readAll(image).equals(model)).toBe(true);
  });
  expect(run('qemu-img', 'check', 'disk.qcow2')).toMatch(/^No errors/);
});

it('zeroes show in a raw data file too', () => {
  make(',data_file=data.raw,data_file_raw=on');
  withOurs((image) => {
    for (const [index, [offsetBytes, length]] of RANGES.entries())
      expect(image.zero(offsetBytes, length, index % 2 === 0 ? 0 : ZERO_MAY_PUNCH, false)).toBe(0);
    expect(readFileSync('data.raw').equals(readAll(image))).toBe(true);
  });
  expect(run('qemu-img', 'check', 'disk.qcow2')).toMatch(/^No errors/);
});
