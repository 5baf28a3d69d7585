import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Image, ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { seeded } from '../server/seeded.js';
import { type Change, recordingCalls, replay } from './recorded-calls.js';
import { run } from './served.js';

const SIZE = 4 << 20;
const BLOCK = 512;
const OPERATIONS = 220;
const long = process.env.TSNBD_TEST_LONG === '1';
/** Of each image: stops with all that was written so far, and power cuts. */
const KILLS = long ? 400 : 20;
const CUTS = long ? 400 : 35;

let folder: string;
const inFolder = (name: string) => join(folder, name);
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-crash-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** What a block may hold when the machine stops: what it held when a flush was answered last, or anything since. */
class Possible {
  readonly #values = Array.from({ length: SIZE / BLOCK }, () => new Set<number>([0]));
  readonly #now = new Uint8Array(SIZE / BLOCK);

  constructor(disk: Buffer) {
    for (let block = 0; block < this.#now.length; block += 1) {
      this.#now[block] = disk[block * BLOCK] ?? 0;
      this.#values[block] = new Set([this.#now[block] ?? 0]);
    }
  }

  set(from: number, to: number, value: number): void {
    for (let block = from; block < to; block += 1) {
      this.#now[block] = value;
      this.#values[block]?.add(value);
    }
  }

  /** A trim leaves zeroes, or what was there. */
  trim(from: number, to: number, read: Buffer): void {
    for (let block = from; block < to; block += 1) this.set(block, block + 1, read[(block - from) * BLOCK] ?? 0);
    for (let block = from; block < to; block += 1) this.#values[block]?.add(0);
  }

  flushed(): void {
    for (const [block, values] of this.#values.entries()) {
      values.clear();
      values.add(this.#now[block] ?? 0);
    }
  }

  copy(): readonly ReadonlySet<number>[] {
    return this.#values.map((values) => new Set(values));
  }
}

interface Workload {
  readonly changes: readonly Change[];
  /** What the disk may be after so many changes of the file. */
  possibleAfter(changes: number): readonly ReadonlySet<number>[];
}

/** Four workers take turns with one image; everything that reaches its file is recorded. */
function work(path: string, seed: number): Workload {
  const changes: Change[] = [];
  const opened = openImage(path, { readOnly: false });
  const images = [0, 1, 2, 3].map(() => imageFrom(opened.handle, recordingCalls(changes)));
  const disk = Buffer.alloc(SIZE);
  expect(images[0]?.read(0, SIZE, disk, 0)).toBe(0);
  const possible = new Possible(disk);
  const marks: { readonly at: number; readonly possible: readonly ReadonlySet<number>[] }[] = [];
  const random = seeded(seed);
  for (let done = 0; done < OPERATIONS; done += 1) {
    const image = images[random(4)];
    if (image !== undefined) operate(image, possible, random);
    marks.push({ at: changes.length, possible: possible.copy() });
  }
  for (const image of images) image.close();
  opened.close();
  // A stop within an operation leaves what was possible before it, or after it.
  const possibleAfter = (count: number) => {
    const next = marks.findIndex(({ at }) => at >= count);
    const [before, after] = [marks[next - 1], marks[next]];
    if (before === undefined || after === undefined) return after?.possible ?? before?.possible ?? [];
    return after.possible.map((values, block) => new Set([...values, ...(before.possible[block] ?? [])]));
  };
  return { changes, possibleAfter };
}

function operate(image: Image, possible: Possible, random: (below: number) => number): void {
  const blocks = 1 + random(random(5) === 0 ? 300 : 20);
  const from = random(SIZE / BLOCK - blocks);
  const to = from + blocks;
  const [offset, length] = [from * BLOCK, blocks * BLOCK];
  const kind = random(12);
  if (kind < 7) {
    const value = 1 + random(255);
    expect(image.write(offset, length, Buffer.alloc(length, value), 0, false)).toBe(0);
    possible.set(from, to, value);
  } else if (kind === 7) {
    expect(image.zero(offset, length, random(2) === 0 ? ZERO_MAY_PUNCH : 0, false)).toBe(0);
    possible.set(from, to, 0);
  } else if (kind === 8) {
    expect(image.trim(offset, length, false)).toBe(0);
    const read = Buffer.alloc(length);
    expect(image.read(offset, length, read, 0)).toBe(0);
    possible.trim(from, to, read);
  } else if (kind < 11) {
    expect(image.flush()).toBe(0);
    possible.flushed();
  }
}

/** No errors in the tables (leaks may be), and a disk that may be so. */
async function verify(path: string, possible: readonly ReadonlySet<number>[], when: string): Promise<void> {
  const { status, stdout, stderr } = await run('qemu-img', 'check', '-U', path);
  expect([when, [0, 3].includes(status) ? 'no errors' : stdout + stderr]).toEqual([when, 'no errors']);
  execFileSync('qemu-img', ['convert', '-U', '-O', 'raw', path, inFolder('disk.raw')]);
  const disk = readFileSync(inFolder('disk.raw'));
  for (const [block, values] of possible.entries()) {
    const value = disk[block * BLOCK] ?? 0;
    const isWhole = disk.subarray(block * BLOCK, (block + 1) * BLOCK).every((byte) => byte === value);
    if (!isWhole || !values.has(value)) {
      throw new Error(`${when}: block ${block} is ${value}, not one of ${[...values].join(', ')}`);
    }
  }
}

function create(options: string, backing: boolean): void {
  const option = options === '' ? [] : ['-o', options];
  const qemuIo = (image: string, ...commands: string[]) =>
    execFileSync('qemu-io', [image, ...commands.flatMap((command) => ['-c', command])], { stdio: 'ignore' });
  if (backing) {
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', inFolder('base.qcow2'), String(SIZE)]);
    qemuIo(inFolder('base.qcow2'), 'write -P 200 100k 900k', 'write -P 201 2M 1M');
  }
  const below = backing ? ['-b', inFolder('base.qcow2'), '-F', 'qcow2'] : [];
  execFileSync('qemu-img', [
    'create',
    '-q',
    '-f',
    'qcow2',
    ...option,
    ...below,
    inFolder('original.qcow2'),
    String(SIZE),
  ]);
  qemuIo(inFolder('original.qcow2'), 'write -P 100 50k 700k', 'write -P 101 3M 200k');
}

describe.each<[string, string, boolean, boolean]>([
  ['clusters of 64K', '', false, false],
  ['a backing file', '', true, false],
  ['snapshots', 'cluster_size=4096', false, true],
  ['clusters of 512, refcounts of 64 bits', 'cluster_size=512,refcount_bits=64', false, false],
  ['subclusters on a backing file', 'extended_l2=on,cluster_size=16384', true, false],
  ['version 2', 'compat=0.10,cluster_size=4096', false, false],
])('an image with %s', (_, options, backing, snapshots) => {
  it('has no errors, and what was flushed, wherever its writers are stopped', async () => {
    create(options, backing);
    const original = inFolder('original.qcow2');
    if (snapshots) execFileSync('qemu-img', ['snapshot', '-c', 'one', original]);
    copyFileSync(original, inFolder('worked.qcow2'));
    const { changes, possibleAfter } = work(inFolder('worked.qcow2'), 5);
    expect(changes.length).toBeGreaterThan(100);
    const syncs = changes.flatMap(({ kind }, index) => (kind === 'sync' ? [index] : []));
    const random = seeded(17);
    const crashed = inFolder('crashed.qcow2');
    for (let kill = 0; kill < KILLS; kill += 1) {
      const count = Math.floor((changes.length * (kill + 1)) / KILLS);
      replay(original, crashed, changes, count, () => true);
      await verify(crashed, possibleAfter(count), `killed after ${count} of ${changes.length} changes`);
    }
    for (let cut = 0; cut < CUTS; cut += 1) {
      // Most is lost right before a sync.
      const count = cut % 4 === 0 ? 1 + random(changes.length) : (syncs[random(syncs.length)] ?? 0);
      const keeps = random(5);
      replay(original, crashed, changes, count, () => random(4) < keeps);
      await verify(crashed, possibleAfter(count), `cut ${cut}, after ${count} of ${changes.length} changes`);
    }
  });
});

it('what an earlier crash has left behind the counted clusters does not show through', async () => {
  create('', false);
  const path = inFolder('original.qcow2');
  execFileSync('sh', ['-c', `head -c 3000000 /dev/zero | tr '\\0' '\\377' >> ${path}`]);
  const opened = openImage(path, { readOnly: false });
  const image = imageFrom(opened.handle);
  for (let at = 1 << 20; at < 3 << 20; at += 65_536)
    expect(image.write(at + 4096, 512, Buffer.alloc(512, 7), 0, false)).toBe(0);
  image.close();
  opened.close();
  execFileSync('qemu-img', ['check', path]);
  execFileSync('qemu-img', ['convert', '-O', 'raw', path, inFolder('disk.raw')]);
  expect(readFileSync(inFolder('disk.raw')).includes(0xff)).toBe(false);
});
