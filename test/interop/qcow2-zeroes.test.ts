import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type Image, ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';

const K = 1_024;
const CLUSTER = 64 * K;
/** The last cluster is a part of one. */
const SIZE = 20 * CLUSTER + 10 * K;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-zeroes-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const run = (program: string, ...args: string[]) => execFileSync(program, args, { cwd: folder, encoding: 'utf8' });
const qemuIo = (image: string, ...commands: string[]) =>
  run('qemu-io', '-d', 'unmap', image, ...commands.flatMap((command) => ['-c', command]));

interface Piece {
  readonly start: number;
  readonly length: number;
  readonly zero: boolean;
  readonly depth: number;
  readonly offset?: number;
}

/**
 * What `qemu-img map` tells: how far there are zeroes or data, in which of the images, with storage or without. Where that is
 * depends on what is free; and zeroes without storage are the same whether an entry says so or nothing is there.
 */
function map(image: string): readonly string[] {
  const told = JSON.parse(run('qemu-img', 'map', '--output=json', image)) as readonly Piece[];
  const pieces: { what: string; end: number }[] = [];
  for (const { start, length, zero, depth, offset } of told) {
    const isNothing = zero && offset === undefined;
    const what = isNothing ? 'nothing' : `${zero ? 'zeroes' : 'data'} with storage in image ${depth}`;
    const last = pieces.at(-1);
    if (last?.what === what) last.end = start + length;
    else pieces.push({ what, end: start + length });
  }
  return pieces.map(({ what, end }) => `${what} up to ${end / K}K`);
}

/** Whole clusters of data, of zeroes with storage and without, and of nothing; parts of some; and the disk's end. */
const RANGES = [
  [0, 2 * CLUSTER],
  [3 * CLUSTER + 4 * K, 2 * CLUSTER],
  [6 * CLUSTER, CLUSTER],
  [8 * CLUSTER, 3 * CLUSTER],
  [12 * CLUSTER + 1 * K, 3 * K],
  [14 * CLUSTER, 2 * CLUSTER],
  [20 * CLUSTER, 10 * K],
] as const;

interface Way {
  readonly theirs: string;
  ours(image: Image, offsetBytes: number, length: number): number;
}

const WAYS: readonly Way[] = [
  { theirs: 'discard', ours: (image, offset, length) => image.trim(offset, length, false) },
  { theirs: 'write -z', ours: (image, offset, length) => image.zero(offset, length, 0, false) },
  { theirs: 'write -z -u', ours: (image, offset, length) => image.zero(offset, length, ZERO_MAY_PUNCH, false) },
];

function make(version: string, hasBacking: boolean): void {
  const below = hasBacking ? ['-b', 'base.raw', '-F', 'raw'] : [];
  run('qemu-img', 'create', '-q', '-f', 'raw', 'base.raw', String(18 * CLUSTER));
  run('qemu-io', '-f', 'raw', '-c', `write -P 9 0 ${18 * CLUSTER}`, 'base.raw');
  run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', `compat=${version}`, ...below, 'disk.qcow2', String(SIZE));
  const zeroes = version === '1.1' ? ['write -z 512k 64k', 'write -z -u 576k 64k'] : [];
  qemuIo('disk.qcow2', 'write -P 1 0 512k', 'write -P 2 512k 128k', ...zeroes, `write -P 3 ${20 * CLUSTER} 10k`);
}

it.each(
  ['1.1', '0.10'].flatMap((version) =>
    [false, true].flatMap((hasBacking) => WAYS.map((way) => [version, hasBacking, way.theirs, way] as const)),
  ),
)('compat %s, on a backing file: %s: %s leaves allocated, zero and nothing what it does for QEMU', (...row) => {
  const [version, hasBacking, , { theirs, ours }] = row;
  make(version, hasBacking);
  copyFileSync(join(folder, 'disk.qcow2'), join(folder, 'their.qcow2'));
  qemuIo('their.qcow2', ...RANGES.map(([offsetBytes, length]) => `${theirs} ${offsetBytes} ${length}`));
  const opened = openImage(join(folder, 'disk.qcow2'), { readOnly: false });
  const image = imageFrom(opened.handle);
  for (const [offsetBytes, length] of RANGES) expect(ours(image, offsetBytes, length)).toBe(0);
  image.close();
  opened.close();
  expect(map('disk.qcow2')).toEqual(map('their.qcow2'));
  expect(run('qemu-img', 'compare', 'disk.qcow2', 'their.qcow2')).toMatch(/identical/);
  expect(run('qemu-img', 'check', 'disk.qcow2')).toMatch(/^No errors/);
});
