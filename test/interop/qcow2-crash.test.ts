import { execFileSync } from 'node:child_process';
import { closeSync, copyFileSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkImage } from '#tsnbd/image/check-image.js';
import { type Image, ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { METADATA_LOCK } from '#tsnbd/image/qcow2/memory.js';
import { long } from '../long.js';
import { seeded } from '../server/seeded.js';
import { BLOCK, type Done, expectNoErrors, expectPossible, firstBytes, PossibleDisk } from './possible-disk.js';
import { type Change, make, recordingCalls, replay } from './recorded-calls.js';

const SIZE = 4 << 20;
const OPERATIONS = long ? 220 : 140;
/** Power cuts between each two syncs. */
const CUTS = long ? 8 : 1;
/** One state of so many is checked and read by QEMU too, which takes ten times as long. */
const QEMU_LOOKS = long ? 2 : 16;

let folder: string;
const inFolder = (name: string) => join(folder, name);
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-crash-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

interface Workload {
  readonly changes: readonly Change[];
  /** A function that tells what the disk may be after so many changes of the file: more each time. */
  possibleDisks(): (changes: number) => PossibleDisk;
}

/**
 * Four workers take turns with one image, and with `besideSyncs` do some of what they do while another syncs, where that is waited for
 * without the lock; everything that reaches its file is recorded.
 */
function work(path: string, seed: number, besideSyncs: boolean): Workload {
  const changes: Change[] = [];
  const opened = openImage(path, { readOnly: false });
  let duringSync = (_worker: number) => {};
  const images = [0, 1, 2, 3].map((worker) =>
    imageFrom(
      opened.handle,
      recordingCalls(changes, () => duringSync(worker)),
    ),
  );
  const disk = Buffer.alloc(SIZE);
  expect(images[0]?.read(0, SIZE, disk, 0)).toBe(0);
  const before = firstBytes(disk);
  const history: { readonly done: Done; readonly after: number }[] = [];
  const random = seeded(seed);
  const tell = (done: Done) => history.push({ done, after: changes.length });
  const flushes = new BegunFlushes(tell);
  const operateOn = (image: Image, choose: (below: number) => number, flush: () => void) =>
    operate(
      image,
      choose,
      (done) => {
        if (done.kind === 'set') flushes.changesOfDisk += 1;
        tell(done);
      },
      flush,
    );
  const { handle } = opened;
  if (handle.format !== 'qcow2') throw new Error(`the image is taken for ${handle.format}`);
  const chooseOther = seeded(seed + 1);
  let inSyncs = 0;
  let isInOne = false;
  if (besideSyncs)
    duringSync = (worker) => {
      const image = images[(worker + 1 + chooseOther(3)) % 4];
      if (isInOne || image === undefined || Atomics.load(handle.memory.fields, METADATA_LOCK) !== 0) return;
      isInOne = true;
      const before = flushes.changesOfDisk;
      // A flush would wait for that sync.
      operateOn(image, chooseOther, () => {});
      inSyncs += flushes.changesOfDisk - before;
      isInOne = false;
    };
  for (let done = 0; done < OPERATIONS; done += 1) {
    const image = images[random(4)];
    if (image !== undefined) operateOn(image, random, () => flushes.flush(image, random(3) === 0));
  }
  for (const image of images) flushes.finish(image);
  expect(flushes.besideOthers).toBeGreaterThan(0);
  if (besideSyncs) expect(inSyncs).toBeGreaterThan(5);
  for (const image of images) image.close();
  opened.close();
  const possibleDisks = () => {
    const possible = new PossibleDisk(before);
    let next = 0;
    return (count: number) => {
      for (let event = history[next]; event !== undefined; event = history[next]) {
        // One change may be in the file before it is done; a flush is none before.
        if ((history[next - 1]?.after ?? 0) > count || (event.after > count && event.done.kind === 'flush')) break;
        possible.do(event.done, true);
        next += 1;
      }
      return possible;
    };
  };
  return { changes, possibleDisks };
}

/** Flushes, of which some go on until the image is to flush again. */
class BegunFlushes {
  changesOfDisk = 0;
  /** Those during which something was changed. */
  besideOthers = 0;
  /** After how many changes they began. */
  readonly #begun = new Map<Image, { readonly begunAfter: number; readonly changesThen: number }>();
  readonly #tell: (done: Done) => void;

  constructor(tell: (done: Done) => void) {
    this.#tell = tell;
  }

  flush(image: Image, waits: boolean): void {
    this.finish(image);
    // What others do while it waits for a sync need not be covered.
    const begunAfter = this.changesOfDisk;
    if (!waits && image.beginFlush()) {
      this.#begun.set(image, { begunAfter, changesThen: this.changesOfDisk });
      return;
    }
    expect(image.flush()).toBe(0);
    this.#tell({ kind: 'flush', begunAfter });
  }

  finish(image: Image): void {
    const begun = this.#begun.get(image);
    if (begun === undefined) return;
    const { begunAfter, changesThen } = begun;
    expect(image.finishFlush()).toBe(0);
    if (changesThen < this.changesOfDisk) this.besideOthers += 1;
    this.#begun.delete(image);
    this.#tell({ kind: 'flush', begunAfter });
  }
}

function operate(image: Image, random: (below: number) => number, tell: (done: Done) => void, flush: () => void): void {
  const blocks = 1 + random(random(5) === 0 ? 300 : 20);
  const from = random(SIZE / BLOCK - blocks);
  const [offset, length] = [from * BLOCK, blocks * BLOCK];
  const set = (values: Uint8Array, mayBeZero = false) => tell({ kind: 'set', from, values, mayBeZero });
  const kind = random(12);
  if (kind < 7) {
    const value = 1 + random(255);
    expect(image.write(offset, length, Buffer.alloc(length, value), 0, false)).toBe(0);
    set(new Uint8Array(blocks).fill(value));
  } else if (kind === 7) {
    expect(image.zero(offset, length, random(2) === 0 ? ZERO_MAY_PUNCH : 0, false)).toBe(0);
    set(new Uint8Array(blocks));
  } else if (kind === 8) {
    // A trim leaves zeroes, or what was there.
    expect(image.trim(offset, length, false)).toBe(0);
    const read = Buffer.alloc(length);
    expect(image.read(offset, length, read, 0)).toBe(0);
    set(firstBytes(read), true);
  } else if (kind < 11) {
    flush();
  }
}

/** Checked and read by QEMU where that is asked, else by us. */
async function look(path: string, possible: PossibleDisk, when: string, byQemu: boolean): Promise<void> {
  if (byQemu) await expectNoErrors(path, when);
  const watch = { onFinding: () => {}, onProgress: () => {} };
  expect([when, checkImage(path, { repair: undefined }, watch)]).toMatchObject([
    when,
    { corruptions: 0, checkErrors: 0 },
  ]);
  expectPossible(byQemu ? theirDisk(path) : ourDisk(path), possible, when);
}

function theirDisk(path: string): Buffer {
  execFileSync('qemu-img', ['convert', '-U', '-O', 'raw', path, inFolder('disk.raw')]);
  return readFileSync(inFolder('disk.raw'));
}

const disk = Buffer.alloc(SIZE);

function ourDisk(path: string): Buffer {
  const opened = openImage(path, { readOnly: true });
  const image = imageFrom(opened.handle);
  expect(image.read(0, SIZE, disk, 0)).toBe(0);
  image.close();
  opened.close();
  return disk;
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
  ['clusters of 1024, refcounts of 64 bits', 'cluster_size=1024,refcount_bits=64', false, false],
  ['subclusters on a backing file', 'extended_l2=on,cluster_size=16384', true, false],
  ['version 2', 'compat=0.10,cluster_size=4096', false, false],
])('an image with %s', (_, options, backing, snapshots) => {
  it('has no errors, and what was flushed, wherever its writers are stopped', async () => {
    create(options, backing);
    const original = inFolder('original.qcow2');
    if (snapshots) execFileSync('qemu-img', ['snapshot', '-c', 'one', original]);
    copyFileSync(original, inFolder('worked.qcow2'));
    // Where the refcount table has to grow, that would wait for the sync, on the same thread.
    const besideSyncs = !options.includes('cluster_size=512,');
    const { changes, possibleDisks } = work(inFolder('worked.qcow2'), 7, besideSyncs);
    expect(changes.length).toBeGreaterThan(100);
    const crashed = inFolder('crashed.qcow2');
    copyFileSync(original, crashed);
    const fd = openSync(crashed, 'r+');
    const possibleAfter = possibleDisks();
    for (const [index, change] of changes.entries()) {
      make(fd, change);
      const when = `stopped after ${index + 1} of ${changes.length} changes`;
      await look(crashed, possibleAfter(index + 1), when, index % QEMU_LOOKS === 0);
    }
    closeSync(fd);
    const syncs = changes.flatMap(({ kind }, index) => (kind === 'sync' ? [index] : []));
    const random = seeded(17);
    for (let round = 0; round < CUTS; round += 1) {
      const possibleAtCut = possibleDisks();
      // Most is lost right before a sync.
      for (const [index, count] of syncs.entries()) {
        const keeps = random(5);
        replay(original, crashed, changes, count, () => random(4) < keeps);
        const when = `cut ${index} of round ${round}, after ${count} of ${changes.length} changes`;
        await look(crashed, possibleAtCut(count), when, index % QEMU_LOOKS === 0);
      }
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
