import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { ImageError } from '#tsnbd/image/errors.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import type { SnapshotChoice } from '#tsnbd/image/qcow2/load-snapshot.js';
import { IMAGE_RECIPES, SIZE } from './qcow2-images.js';
import { runTsnbd, serveUnix, succeed } from './served.js';

let folder: string;
const inFolder = (name: string) => join(folder, name);
const qemuImg = (...args: string[]) => execFileSync('qemu-img', args, { cwd: folder, encoding: 'utf8' });
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-snapshot-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function make(recipe: string): void {
  IMAGE_RECIPES.find(({ name }) => name === recipe)?.make(folder);
}

function disk(snapshot: SnapshotChoice): Buffer {
  const opened = openImage(inFolder('disk.qcow2'), { readOnly: true, snapshot });
  const image = imageFrom(structuredClone(opened.handle));
  const bytes = Buffer.alloc(image.sizeBytes, 0xee);
  expect(image.read(0, bytes.length, bytes, 0)).toBe(0);
  image.close();
  opened.close();
  return bytes;
}

function theirs(snapshot: string): Buffer {
  qemuImg('convert', '-l', snapshot, '-O', 'raw', 'disk.qcow2', 'theirs.raw');
  return readFileSync(inFolder('theirs.raw'));
}

it.each(['snapshots', 'snapshots, version 2', 'snapshots, subclusters'])(
  'a snapshot is what QEMU reads of it: %s',
  (recipe) => {
    make(recipe);
    const [one, two] = [theirs('one'), theirs('two')];
    expect(one.equals(two)).toBe(false);
    expect(disk({ idOrName: 'one' }).equals(one)).toBe(true);
    expect(disk({ idOrName: '2' }).equals(two)).toBe(true);
    expect(disk({ id: '1', name: 'one' }).equals(one)).toBe(true);
    expect(disk({ name: 'two' }).equals(two)).toBe(true);
  },
);

it('an id goes before a name, and a snapshot has the size that the disk had', () => {
  make('snapshots');
  const one = theirs('one');
  qemuImg('snapshot', '-c', '1', 'disk.qcow2');
  qemuImg('resize', '-q', 'disk.qcow2', '16M');
  expect(disk({ idOrName: '1' }).equals(one)).toBe(true);
  expect(one.length).toBe(SIZE);
  expect(disk({ name: '1' }).length).toBe(SIZE);
});

it('one that is not there is an error that names those that are', () => {
  make('snapshots');
  const refused = (snapshot: SnapshotChoice) => {
    try {
      disk(snapshot);
    } catch (error) {
      if (error instanceof ImageError) return `${error.code}: ${error.message.replace(`${folder}/`, '')}`;
      throw error;
    }
    return '';
  };
  const known = "it has: 1 'one', 2 'two'";
  expect(refused({ idOrName: 'three' })).toBe(`missing: disk.qcow2 has no snapshot 'three'; ${known}`);
  expect(refused({ id: '1', name: 'two' })).toBe(`missing: disk.qcow2 has no snapshot 'two' with the id '1'; ${known}`);
  expect(refused({ id: '7' })).toBe(`missing: disk.qcow2 has no snapshot with the id '7'; ${known}`);
  qemuImg('create', '-q', '-f', 'qcow2', 'disk.qcow2', '1M');
  expect(refused({ idOrName: 'one' })).toBe("missing: disk.qcow2 has no snapshot 'one': it has none at all");
  qemuImg('create', '-q', '-f', 'raw', 'disk.qcow2', '1M');
  expect(refused({ idOrName: 'one' })).toMatch(/^unsupported: disk.qcow2 is a raw image/);
});

it('tsnbd -l serves it, for reading only', async () => {
  make('snapshots');
  const expected = theirs('one');
  const served = await serveUnix(
    inFolder('socket'),
    inFolder('disk.qcow2'),
    '-f',
    'qcow2',
    '-t',
    '-l',
    'snapshot.name=one',
  );
  await succeed('nbdcopy', served.uri, inFolder('copy.raw'));
  expect(await succeed('nbdinfo', served.uri)).toContain('is_read_only: true');
  expect(await served.stop()).toBe(0);
  expect(readFileSync(inFolder('copy.raw')).equals(expected)).toBe(true);
  const { status, stderr } = await runTsnbd('-l', 'three', '-k', inFolder('socket'), inFolder('disk.qcow2'));
  expect(status).toBe(1);
  expect(stderr).toMatch(/^tsnbd: .* has no snapshot 'three'; it has: 1 'one', 2 'two'\n$/);
});
