import { readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { afterEach, describe, expect, it } from 'vitest';
import { fileCalls } from '#tsnbd/image/file-calls.js';
import { emptyPlace, type Image } from '#tsnbd/image/image.js';
import { type ImageHandle, imageFrom, openImage } from '#tsnbd/image/open-image.js';
import {
  L1_CHANGES,
  L1_WRITTEN,
  METADATA_LOCK,
  type Qcow2Memory,
  RANGES_MAX,
  setCorrupt,
  TABLE_OFFSET,
} from '#tsnbd/image/qcow2/memory.js';
import { PUNCH_HOLE } from '#tsnbd/kernel/fd-calls.js';
import { useTemporaryFolder } from '../temporary-folder.js';
import { type Cluster, qcow2Bytes } from './qcow2-bytes.js';
import { letGo, startWaiting } from './waiting-thread.js';

// What other connections do while one waits for a sync of its flush: as much as they like, and the order of what reaches the disk
// is kept.

const { EIO } = constants.errno;
const CLUSTER = 16_384;
const SUBCLUSTER = CLUSTER / 32;
const EXTENDED_L2 = 1n << 4n;
/** In a table that nobody has read yet. */
const FAR = 5_000;
const inFolder = useTemporaryFolder();

const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});

interface Two {
  readonly handle: ImageHandle;
  readonly fields: Qcow2Memory['fields'];
  readonly numbers: Float64Array;
  readonly l1InFile: () => readonly bigint[];
  /** For which refcount blocks of the first there are entries. */
  readonly blocksInFile: () => readonly boolean[];
  /** The first L2 table, and what follows. */
  readonly tableInFile: () => Buffer;
  /** Changes whenever entries are written to the file. */
  readonly versionsWritten: () => string;
  readonly image: Image;
  /** Of `image`. */
  readonly calls: string[];
  readonly other: Image;
  /** Called in each sync of `image`, which is told whether the lock is free. */
  duringSync: (isFree: boolean) => unknown;
  /** Each cluster of the file whose storage `image` gave back. */
  readonly freed: number[];
  /** The same, for each time that it does. */
  duringFree: (isFree: boolean) => void;
}

/** Two workers of an image whose first clusters are allocated. */
function open(first: Cluster, incompatible = 0n, clusterBits = 14): Two {
  const path = inFolder('disk.qcow2');
  const clusters = new Map([0, 1, 2, FAR].map((cluster) => [cluster, first]));
  const clusterBytes = 2 ** clusterBits;
  const made = qcow2Bytes({ clusterBits, sizeBytes: 8_192 * CLUSTER, clusters, incompatible });
  writeFileSync(path, made.bytes);
  const opened = openImage(path, { readOnly: false });
  undo.push(() => opened.close());
  const { handle } = opened;
  if (handle.format !== 'qcow2') throw new Error(`the image is taken for ${handle.format}`);
  const { fields, l2, write } = handle.memory;
  if (write === undefined) throw new Error('the image is read-only');
  const calls: string[] = [];
  const image = imageFrom(handle, {
    ...fileCalls,
    write: (fd, source, at, length, offsetBytes) => {
      if (offsetBytes === made.l2At.get(0)) calls.push('entries');
      if (Math.floor(offsetBytes / clusterBytes) === made.refcountTableAt / clusterBytes) calls.push('blocks');
      return fileCalls.write(fd, source, at, length, offsetBytes);
    },
    fallocate: (fd, mode, offsetBytes, length) => {
      if (mode === PUNCH_HOLE) {
        calls.push('free');
        for (let at = offsetBytes; at < offsetBytes + length; at += CLUSTER) two.freed.push(at);
        two.duringFree(Atomics.load(fields, METADATA_LOCK) === 0);
      }
      return fileCalls.fallocate(fd, mode, offsetBytes, length);
    },
    sync: (fd) => {
      calls.push('sync');
      two.duringSync(Atomics.load(fields, METADATA_LOCK) === 0);
      return fileCalls.sync(fd);
    },
  });
  undo.push(() => image.close());
  const other = imageFrom(handle);
  undo.push(() => other.close());
  const two: Two = {
    handle,
    fields,
    numbers: write.numbers,
    l1InFile: () => [0, 1, 2, 3].map((entry) => readFileSync(path).readBigUInt64BE(made.l1At + entry * 8)),
    blocksInFile: () =>
      [0, 1, 2, 3].map((block) => readFileSync(path).readBigUInt64BE(made.refcountTableAt + block * 8) > 0n),
    tableInFile: () => readFileSync(path).subarray(made.l2At.get(0)),
    versionsWritten: () => l2.written.join(),
    image,
    calls,
    other,
    duringSync: () => {},
    freed: [],
    duringFree: () => {},
  };
  return two;
}

const data: Cluster = { kind: 'data', bytes: new Uint8Array(CLUSTER).fill(1) };
const oneSubcluster: Cluster = { kind: 'subclusters', allocated: 1, zero: 0, bytes: data.bytes };

const write = (image: Image, offsetBytes: number, length: number) =>
  expect(image.write(offsetBytes, length, new Uint8Array(length).fill(9), 0, false)).toBe(0);
const trim = (image: Image, cluster: number) => expect(image.trim(cluster * CLUSTER, CLUSTER, false)).toBe(0);

/** Where in the file a cluster lies. */
function placeOf(image: Image, cluster: number): number {
  const place = emptyPlace();
  expect(image.findPlace(cluster * CLUSTER, CLUSTER, place)).toBe(true);
  image.letGoPlaces();
  return place.offsetBytes;
}

it.each<[string, (image: Image) => void, number]>([
  ['what is new', (image) => write(image, 20 * CLUSTER, CLUSTER), 2],
  ['what was trimmed', (image) => trim(image, 0), 1],
  [
    'both',
    (image) => {
      write(image, 20 * CLUSTER, CLUSTER);
      trim(image, 0);
    },
    2,
  ],
])('waits for a disk without the lock: of %s', (_, change, syncs) => {
  const two = open(data);
  const wereFree: boolean[] = [];
  two.duringSync = (isFree) => {
    wereFree.push(isFree);
    const target = new Uint8Array(1);
    if (isFree) expect(two.other.read(FAR * CLUSTER, 1, target, 0)).toBe(0);
    expect(target).toEqual(Uint8Array.of(isFree ? 1 : 0));
  };
  change(two.image);
  expect(two.image.flush()).toBe(0);
  expect(wereFree).toEqual(new Array(syncs).fill(true));
  expect(two.image.flush()).toBe(0);
});

it.each([false, true])(
  'what an entry points to is synced before it: another points meanwhile: %s',
  (pointsMeanwhile) => {
    const two = open(oneSubcluster, EXTENDED_L2);
    /** Of the first two clusters, in the file. */
    const entries = () => [0, 16].map((at) => two.tableInFile().toString('hex', at, at + 16));
    const before = entries();
    // In clusters that are there, so that no refcount changes.
    write(two.image, SUBCLUSTER, SUBCLUSTER);
    two.calls.length = 0;
    two.duringSync = () => {
      two.duringSync = () => {};
      if (pointsMeanwhile) write(two.other, CLUSTER + SUBCLUSTER, SUBCLUSTER);
    };
    expect(two.image.flush()).toBe(0);
    // What the other's entry points to is not on the disk.
    expect(two.calls).toEqual(['sync', 'entries', 'sync']);
    const after = entries();
    expect(after[0]).not.toBe(before[0]);
    expect(after[1]).toBe(before[1]);
    expect(two.image.flush()).toBe(0);
    expect(entries()[1] === before[1]).toBe(!pointsMeanwhile);
  },
);

describe('a new refcount block is synced before the table points to it, and that before entries rely on it', () => {
  const small = 512;
  const inABlock = small / 2;
  const [none, one, both] = [1, 2, 3].map((blocks) => [0, 1, 2, 3].map((block) => block < blocks));

  /** Of a flush, in whose first sync something else happens: what was seen in each sync. */
  function flushed(meanwhile: (two: Two) => void) {
    const two = open({ kind: 'data', bytes: new Uint8Array(small).fill(1) }, 0n, 9);
    write(two.image, 20 * small, inABlock * small);
    two.calls.length = 0;
    const seen: [isFree: boolean, blocks: readonly boolean[]][] = [];
    two.duringSync = (isFree) => {
      seen.push([isFree, two.blocksInFile()]);
      if (seen.length === 1) meanwhile(two);
    };
    expect(two.image.flush()).toBe(0);
    return { seen, calls: two.calls };
  }

  it('without the lock', () => {
    const { seen, calls } = flushed(() => {});
    expect(seen).toEqual([
      [true, none],
      [true, one],
      [true, one],
    ]);
    expect(calls).toEqual(['sync', 'blocks', 'sync', 'entries', 'sync']);
  });

  it('and one that another makes meanwhile is not pointed to behind that sync', () => {
    const { seen } = flushed(({ other }) => write(other, 1_000 * small, inABlock * small));
    expect(seen.slice(0, 3)).toEqual([
      [true, none],
      [false, one],
      [false, both],
    ]);
  });

  it('but not in a table that was replaced meanwhile by one that has it', () => {
    const { calls } = flushed(({ numbers }) => {
      numbers[TABLE_OFFSET] = (numbers[TABLE_OFFSET] ?? 0) + 1_000 * small;
    });
    expect(calls.slice(0, 2)).toEqual(['sync', 'sync']);
  });
});

it.each([false, true])(
  'entries of the L1 table are written as they were before the sync: the file has newer ones: %s',
  (isNewer) => {
    const two = open(data);
    const before = two.l1InFile();
    // In tables that are not there yet.
    const [first, second] = [1, 3].map((table) => table * 2_048 * CLUSTER);
    write(two.image, first ?? 0, CLUSTER);
    two.duringSync = () => {
      two.duringSync = () => {};
      write(two.other, second ?? 0, CLUSTER);
      // As if another had written them.
      if (isNewer) two.numbers[L1_WRITTEN] = two.numbers[L1_CHANGES] ?? 0;
    };
    expect(two.image.flush()).toBe(0);
    const after = two.l1InFile();
    expect([1, 3].filter((entry) => after[entry] !== before[entry])).toEqual(isNewer ? [] : [1]);
    expect(two.image.flush()).toBe(0);
    expect([1, 3].filter((entry) => two.l1InFile()[entry] !== before[entry])).toEqual([1, 3]);
  },
);

it.each([false, true])('what no entry on the disk needs is freed: another drops meanwhile: %s', (dropsMeanwhile) => {
  const two = open(data);
  // Side by side in the file.
  const [first, second] = [placeOf(two.image, 0), placeOf(two.image, 1)];
  expect(second).toBe(first + CLUSTER);
  trim(two.image, 0);
  two.calls.length = 0;
  two.duringSync = (isFree) => {
    two.duringSync = () => {};
    if (isFree && dropsMeanwhile) trim(two.other, 1);
  };
  expect(two.image.flush()).toBe(0);
  // The other's is freed with its own flush.
  expect(two.calls).toEqual(['entries', 'sync', 'free']);
  expect(two.freed).toEqual([first]);
  expect(two.image.flush()).toBe(0);
  expect(two.freed).toEqual(dropsMeanwhile ? [first, second] : [first]);
});

it('storage is given back without the lock, and to nobody before', () => {
  const two = open(data);
  const dropped = placeOf(two.image, 1);
  const wereFree: boolean[] = [];
  trim(two.image, 1);
  two.duringFree = (isFree) => {
    wereFree.push(isFree);
    if (isFree) write(two.other, 30 * CLUSTER, CLUSTER);
  };
  expect(two.image.flush()).toBe(0);
  expect(wereFree).toEqual([true]);
  const target = new Uint8Array(CLUSTER);
  expect(two.other.read(30 * CLUSTER, CLUSTER, target, 0)).toBe(0);
  expect(target).toEqual(new Uint8Array(CLUSTER).fill(9));
  expect(placeOf(two.other, 30)).not.toBe(dropped);
  write(two.other, 31 * CLUSTER, CLUSTER);
  expect(placeOf(two.other, 31)).toBe(dropped);
});

it('where many pieces wait for being free, they become so without the lock', () => {
  const small = 512;
  const two = open({ kind: 'data', bytes: data.bytes.subarray(0, small) }, 0n, 9);
  // Every other one, so that none become one.
  const last = 2 * RANGES_MAX;
  write(two.image, 0, last * small);
  expect(two.image.flush()).toBe(0);
  const wereFree: boolean[] = [];
  two.duringSync = (isFree) => wereFree.push(isFree);
  for (let at = 0; at < last; at += 2) expect(two.image.trim(at * small, small, false)).toBe(0);
  expect(two.freed.length).toBeGreaterThan(0);
  expect(wereFree).not.toContain(false);
});

/** A thread that waits to be let go, trims so much of what nobody else trims here, and flushes. */
const startOther = ({ handle }: Two, length: number) =>
  startWaiting('./changing-thread.js', { handle, offsetBytes: 2 * CLUSTER, length });

it('nor is it freed where another has written its entries meanwhile, and waits for their sync', async () => {
  const two = open(data);
  const { go, answer } = await startOther(two, CLUSTER);
  const first = placeOf(two.image, 0);
  trim(two.image, 0);
  two.calls.length = 0;
  two.duringSync = () => {
    two.duringSync = () => {};
    const before = two.versionsWritten();
    letGo(go);
    // Nobody else writes to `go` any more: a pause.
    for (let look = 0; look < 500 && two.versionsWritten() === before; look += 1) Atomics.wait(go, 0, 1, 10);
    expect(two.versionsWritten()).not.toBe(before);
  };
  expect(two.image.flush()).toBe(0);
  expect(two.freed).toEqual([first]);
  expect(await answer).toEqual([0]);
});

it('nothing is freed any more where another finds meanwhile that tables contradict each other', () => {
  const two = open(data);
  trim(two.image, 0);
  two.calls.length = 0;
  two.duringSync = () => {
    setCorrupt(two.fields);
  };
  expect(two.image.flush()).toBe(EIO);
  expect(two.calls).toEqual(['entries', 'sync']);
});

it('what was written before that is brought to the disk all the same, also while something waits for being free', () => {
  const two = open(data);
  expect(two.other.findPlace(0, CLUSTER, emptyPlace())).toBe(true);
  trim(two.image, 0);
  expect(two.image.flush()).toBe(0);
  write(two.image, CLUSTER, CLUSTER);
  setCorrupt(two.fields);
  two.calls.length = 0;
  expect(two.image.flush()).toBe(0);
  expect(two.calls).toEqual(['sync']);
  two.other.letGoPlaces();
});

it('two that flush at the same time both wait without the lock', async () => {
  const two = open(oneSubcluster, EXTENDED_L2);
  const { go, answer } = await startOther(two, 0);
  write(two.image, SUBCLUSTER, SUBCLUSTER);
  const wereFree: boolean[] = [];
  two.duringSync = (isFree) => {
    wereFree.push(isFree);
    letGo(go);
    // Until the other waits for this sync.
    Atomics.wait(go, 0, 1, 200);
  };
  expect(two.image.flush()).toBe(0);
  expect(await answer).toEqual([0]);
  expect(wereFree).not.toContain(false);
  // Of the other's syncs, which take long: how many ended with the lock taken.
  expect(go[1]).toBe(0);
});
