import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { checkImage } from '#tsnbd/image/check-image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { long } from '../long.js';
import { seeded } from '../server/seeded.js';
import { changeByQemu, IMAGE_RECIPES } from './qcow2-images.js';
import { changeAtRandom } from './random-changes.js';
import { run } from './served.js';

const OPERATIONS = long ? 300 : 150;
/** Larger disks are changed here and there, and not compared byte by byte with a model. */
const MODEL_BYTES_MAX = 2 ** 28;

let folder: string;
let before: string;
const path = () => join(folder, 'disk.qcow2');
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-qcow2-'));
  before = process.cwd();
  process.chdir(folder); // QEMU 7.2 looks for a data file in the process's folder
});
afterEach(() => {
  process.chdir(before);
  rmSync(folder, { recursive: true });
});

function disk(): Buffer {
  execFileSync('qemu-img', ['convert', '-O', 'raw', path(), 'theirs.raw'], { cwd: folder });
  return readFileSync(join(folder, 'theirs.raw'));
}

/** Exit status and words of `qemu-img check`: 0 is clean, 3 is leaked clusters. */
async function check(): Promise<string> {
  const { status, stdout, stderr } = await run('qemu-img', 'check', '-U', path());
  return status === 0 ? 'clean' : `${status}: ${stdout}${stderr}`;
}

function ourDisk(): Buffer {
  const opened = openImage(path(), { readOnly: true });
  const image = imageFrom(opened.handle);
  const bytes = Buffer.alloc(image.sizeBytes);
  expect(image.read(0, bytes.length, bytes, 0)).toBe(0);
  image.close();
  opened.close();
  return bytes;
}

it.each(IMAGE_RECIPES)(
  'what we write is what QEMU reads, and what QEMU writes behind us is what we read: $name',
  async ({ name, make }) => {
    make(folder);
    const opened = openImage(path(), { format: 'qcow2', readOnly: false });
    const images = [0, 1, 2].map(() => imageFrom(structuredClone(opened.handle)));
    const random = seeded(7);
    const isSmall = opened.sizeBytes <= MODEL_BYTES_MAX;
    const snapshots = execFileSync('qemu-img', ['snapshot', '-l', '-U', path()], { encoding: 'utf8' });
    const model = isSmall ? Buffer.alloc(opened.sizeBytes) : Buffer.alloc(0);
    if (isSmall) expect(images[0]?.read(0, model.length, model, 0)).toBe(0);
    for (let done = 0; done < OPERATIONS; done += 1) {
      const image = images[random(3)];
      if (image === undefined) continue;
      if (isSmall) changeAtRandom(image, model, random);
      else expect(image.write(512 * random(image.sizeBytes / 512 - 40), 9000, Buffer.alloc(9000, 1), 0, false)).toBe(0);
    }
    for (const image of images) image.close();
    opened.close();
    // Without the mark that they are up to date QEMU does not count bitmaps.
    expect(await check()).toMatch(name === 'bitmaps' ? /^3: / : /^clean$/);
    if (isSmall) expect(disk().equals(model)).toBe(true);
    expect(execFileSync('qemu-img', ['snapshot', '-l', path()], { encoding: 'utf8' })).toBe(snapshots);
    if (!isSmall) return;
    changeByQemu(folder, model.length);
    expect(ourDisk().equals(disk())).toBe(true);
  },
);

it.each(['none', 'writethrough', 'directsync', 'unsafe'] as const)(
  'the cache mode %s writes the same disk',
  async (cache) => {
    IMAGE_RECIPES.find(({ name }) => name === 'on qcow2')?.make(folder);
    const opened = openImage(path(), { readOnly: false, cache });
    const images = [0, 1].map(() => imageFrom(opened.handle));
    const model = Buffer.alloc(opened.sizeBytes);
    expect(images[0]?.read(0, model.length, model, 0)).toBe(0);
    const random = seeded(3);
    for (let done = 0; done < 100; done += 1) {
      const image = images[random(2)];
      if (image !== undefined) changeAtRandom(image, model, random);
    }
    for (const image of images) image.close();
    opened.close();
    expect(await check()).toBe('clean');
    expect(disk().equals(model)).toBe(true);
  },
);

it.each(['', 'cluster_size=512', 'extended_l2=on'])(
  'an image that a killed QEMU left dirty is counted anew: %s',
  async (more) => {
    const options = `lazy_refcounts=on${more === '' ? '' : `,${more}`}`;
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', options, path(), '8M']);
    const commands = ['write -P 5 100k 2M', 'flush', 'sigraise 9'].flatMap((command) => ['-c', command]);
    expect(() => execFileSync('qemu-io', [path(), ...commands], { stdio: 'ignore' })).toThrow();
    expect((readFileSync(path())[79] ?? 0) & 1).toBe(1);
    const opened = openImage(path(), { readOnly: false });
    const image = imageFrom(opened.handle);
    expect((readFileSync(path())[79] ?? 0) & 1).toBe(0);
    expect(await check()).toBe('clean');
    const model = Buffer.alloc(8 << 20);
    model.fill(5, 100 << 10, (100 << 10) + (2 << 20));
    const random = seeded(9);
    for (let done = 0; done < 60; done += 1) changeAtRandom(image, model, random);
    image.close();
    opened.close();
    expect(await check()).toBe('clean');
    expect(disk().equals(model)).toBe(true);
  },
);

it('bitmaps that are out of date are no tables: what they lay in is used again once it is free', async () => {
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4096', path(), '1M']);
  execFileSync('qemu-img', ['bitmap', '--add', path(), 'dirt']);
  const writeAll = (byte: number) => {
    const opened = openImage(path(), { readOnly: false });
    const image = imageFrom(opened.handle);
    for (let at = 0; at < image.sizeBytes; at += 4096)
      expect(image.write(at, 4096, Buffer.alloc(4096, byte), 0, false)).toBe(0);
    image.close();
    opened.close();
  };
  const [before, change] = [readFileSync(path()), Buffer.alloc(1)];
  expect(before[95]).toBe(1);
  writeFileSync(path(), Buffer.concat([before.subarray(0, 95), change, before.subarray(96)]));
  expect(await check()).toMatch(/^3: /);
  const watch = { onFinding: () => {}, onProgress: () => {} };
  expect(checkImage(path(), { repair: 'leaks' }, watch)).toMatchObject({ leaksFixed: 2 });
  writeAll(7);
  expect(await check()).toBe('clean');
  expect(disk().every((byte) => byte === 7)).toBe(true);
});

it('snapshots are what they were when the image below them has changed', async () => {
  const recipe = IMAGE_RECIPES.find(({ name }) => name === 'snapshots');
  recipe?.make(folder);
  const snapshot = (name: string) => {
    execFileSync('qemu-img', ['convert', '-l', name, '-O', 'raw', path(), 'snapshot.raw'], { cwd: folder });
    return readFileSync(join(folder, 'snapshot.raw'));
  };
  const [one, two] = [snapshot('one'), snapshot('two')];
  const opened = openImage(path(), { readOnly: false });
  const image = imageFrom(opened.handle);
  expect(image.write(0, image.sizeBytes, Buffer.alloc(image.sizeBytes, 9), 0, false)).toBe(0);
  image.close();
  opened.close();
  expect(await check()).toBe('clean');
  expect(snapshot('one').equals(one)).toBe(true);
  expect(snapshot('two').equals(two)).toBe(true);
  expect(disk().every((byte) => byte === 9)).toBe(true);
});

it.each([
  ['', 4],
  ['cluster_size=512,refcount_bits=1', 4],
  ['extended_l2=on', 4],
  // Each block is a subcluster, whose neighbours others write and zero.
  ['extended_l2=on,cluster_size=16384', 4],
  ['compat=0.10,cluster_size=4096', 4],
])('threads that write at once are one disk (%s, %i threads)', async (options, threads) => {
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...(options === '' ? [] : ['-o', options]), path(), '16M']);
  const opened = openImage(path(), { readOnly: false });
  const program = `
    import { workerData, parentPort } from 'node:worker_threads';
    const { imageFrom } = await import(workerData.module);
    const { handle, number, threads } = workerData;
    const image = imageFrom(handle);
    let state = number + 1;
    const random = (below) => { state = (Math.imul(state, 1664525) + 1013904223) >>> 0; return Math.floor(state / 2 ** 32 * below); };
    const bad = [];
    const blocks = image.sizeBytes / 512;
    const mine = new Uint8Array(blocks);
    for (let i = 0; i < 2500; i += 1) {
      const block = random(blocks / threads) * threads + number;
      const kind = random(8);
      let errno = 0;
      if (kind < 5) {
        mine[block] = 1 + random(255);
        errno = image.write(block * 512, 512, new Uint8Array(512).fill(mine[block]), 0, false);
      } else if (kind === 5) {
        mine[block] = 0;
        errno = image.zero(block * 512, 512, 1, false);
      } else if (kind === 6 && random(30) === 0) errno = image.flush();
      else {
        const got = new Uint8Array(512);
        errno = image.read(block * 512, 512, got, 0);
        if (got.some((byte) => byte !== mine[block])) bad.push([i, block, mine[block], got[0]]);
      }
      if (errno !== 0) bad.push(errno);
    }
    image.close();
    parentPort.postMessage({ bad, mine });`;
  const module = import.meta.resolve('#tsnbd/image/open-image.js');
  const results = await Promise.all(
    Array.from({ length: threads }, (_, number) => {
      const workerData = { module, handle: opened.handle, number, threads };
      const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(program)}`), { workerData });
      return new Promise<{ bad: unknown[]; mine: Uint8Array }>((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
      });
    }),
  );
  opened.close();
  expect(results.map(({ bad }) => bad)).toEqual(Array.from({ length: threads }, () => []));
  expect(await check()).toBe('clean');
  const got = disk();
  for (let block = 0; block < got.length / 512; block += 1) {
    const expected = results[block % threads]?.mine[block];
    if (got[block * 512] !== expected || got[block * 512 + 511] !== expected)
      throw new Error(`block ${block} is wrong`);
  }
});
