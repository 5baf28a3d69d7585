import { readFileSync, writeFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { invariant } from '#tsnbd/base/invariant.js';
import { emptyPlace, type Image, IS_FULL, NOT_BEGUN } from '#tsnbd/image/image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { setCorrupt } from '#tsnbd/image/qcow2/memory.js';
import { RANGES_WAITING } from '#tsnbd/image/shared-layout.js';
import { useTemporaryFolder } from '../temporary-folder.js';
import { type Cluster, type Qcow2Bytes, qcow2Bytes } from './qcow2-bytes.js';
import { letGo, startWaiting } from './waiting-thread.js';

// Past the page cache, writes to clusters that an image has are done by the disk all at the same time.

const CLUSTER = 16_384;
const BLOCK = 4_096;
/** In a table that nobody has read yet. */
const FAR = 5_000;
const data: Cluster = { kind: 'data', bytes: new Uint8Array(CLUSTER).fill(1) };
const inFolder = useTemporaryFolder();

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

/** What is told of writes, by ticket. */
let told: Map<number, number>;
const tell = (ticket: number, errno: number) => told.set(ticket, errno);
const source = new Uint8Array(2 * CLUSTER).fill(9);

interface Wish {
  readonly cache?: 'none' | 'writeback';
  readonly autoclear?: bigint;
  /** Where in the file cluster 0 is to be, whose data stay where they are. */
  readonly place?: (made: Qcow2Bytes) => number;
}

/** So many workers of an image whose clusters 0 to 3 and FAR are data, 4 compressed, and 5 zeroes. */
function open(workers: number, { cache = 'none', autoclear = 0n, place }: Wish = {}) {
  told = new Map();
  const path = inFolder('disk.qcow2');
  const clusters = new Map<number, Cluster>([0, 1, 2, 3, FAR].map((cluster) => [cluster, data]));
  clusters.set(4, { kind: 'compressed', bytes: new Uint8Array(CLUSTER).fill(2) });
  clusters.set(5, { kind: 'zero-allocated' });
  const made = qcow2Bytes({ clusterBits: 14, sizeBytes: 8_192 * CLUSTER, clusters, autoclear });
  if (place !== undefined) made.bytes.writeBigUInt64BE((1n << 63n) | BigInt(place(made)), made.l2At.get(0) ?? 0);
  writeFileSync(path, made.bytes);
  const opened = openImage(path, { format: 'qcow2', readOnly: false, cache });
  undo.push(() => opened.close());
  const { handle } = opened;
  invariant(handle.format === 'qcow2' && handle.memory.write !== undefined, 'it is a qcow2 image that is written to');
  const images = Array.from({ length: workers }, () => imageFrom(handle));
  for (const image of images) undo.push(() => image.close());
  return { path, handle, images, fields: handle.memory.fields };
}

const begin = (image: Image | undefined, at: number, length = BLOCK) => image?.beginWrite(at, length, source, 0) ?? 0;

/** Where in the file a cluster lies. */
function placeOf(image: Image | undefined, cluster: number): number {
  const place = emptyPlace();
  expect(image?.findPlace(cluster * CLUSTER, CLUSTER, place)).toBe(true);
  image?.letGoPlaces();
  return place.offsetBytes;
}

describe('writes to clusters with data', () => {
  it('are begun, and done where the clusters lie', () => {
    const { path, images } = open(1);
    const [image] = images;
    const places = [0, 1, 2].map((cluster) => placeOf(image, cluster));
    const tickets = [begin(image, 0), begin(image, CLUSTER + BLOCK), begin(image, 2 * CLUSTER, CLUSTER)];
    expect(tickets.every((ticket) => ticket >= 0)).toBe(true);
    image?.takeWrites(3, tell);
    expect([...told].sort()).toEqual(tickets.map((ticket) => [ticket, 0]).sort());
    const file = readFileSync(path);
    const [first = 0, second = 0, third = 0] = places;
    expect([first, second + BLOCK, third, third + CLUSTER - 1].map((at) => file[at])).toEqual([9, 9, 9, 9]);
    expect([first + BLOCK, second, second + 2 * BLOCK].map((at) => file[at])).toEqual([1, 1, 1]);
  });

  it.each([
    ['a cluster that is not there', 20 * CLUSTER, BLOCK],
    ['a compressed cluster', 4 * CLUSTER, BLOCK],
    ['a cluster of zeroes', 5 * CLUSTER, BLOCK],
    ['data and what is not there', 3 * CLUSTER, 2 * CLUSTER],
    ['a part of a block', 100, 200],
  ])('are not begun where a table has to change, or blocks are not whole: %s', (_, at, length) => {
    const { images } = open(1);
    expect(begin(images[0], at, length)).toBe(NOT_BEGUN);
  });

  it('are not begun before the header says that the image is written to', () => {
    const [image] = open(1, { autoclear: 1n << 40n }).images;
    expect(begin(image, 0)).toBe(NOT_BEGUN);
    expect(image?.write(0, BLOCK, source, 0, false)).toBe(0);
    expect(begin(image, 0)).toBeGreaterThanOrEqual(0);
    image?.takeWrites(1, tell);
  });

  it('are not begun in an image whose tables contradict each other', () => {
    const { images, fields } = open(1);
    setCorrupt(fields);
    expect(begin(images[0], 0)).toBe(NOT_BEGUN);
  });

  it.each<[string, Required<Wish>['place']]>([
    ['over a table', ({ l1At }) => l1At],
    ['behind the end of the file', ({ bytes }) => bytes.length],
  ])('are not begun %s', (_, place) => {
    expect(begin(open(1, { place }).images[0], 0)).toBe(NOT_BEGUN);
  });

  it('are not begun through the page cache', () => {
    const [image] = open(1, { cache: 'writeback' }).images;
    expect([image?.beginsWrites, begin(image, 0)]).toEqual([false, NOT_BEGUN]);
  });
});

it('a cluster that others drop is not theirs while a write to it is on its way, and those who write let it go then', () => {
  const { images } = open(2);
  const [writer, other] = images;
  const place = placeOf(other, 0);
  const ticket = begin(writer, 0);
  expect(ticket).toBeGreaterThanOrEqual(0);
  expect(other?.trim(0, CLUSTER, false)).toBe(0);
  for (let flush = 0; flush < 3; flush += 1) expect(other?.flush()).toBe(0);
  expect(other?.write(20 * CLUSTER, CLUSTER, source, 0, false)).toBe(0);
  expect(placeOf(other, 20)).not.toBe(place);
  expect(other?.flush()).toBe(0);
  // The other waits for it, so there are no more for now, be it reads.
  expect(begin(writer, CLUSTER)).toBe(NOT_BEGUN);
  expect(writer?.findPlace(CLUSTER, BLOCK, emptyPlace())).toBe(false);
  writer?.takeWrites(1, tell);
  expect([...told]).toEqual([[ticket, 0]]);
  expect(begin(writer, CLUSTER)).toBeGreaterThanOrEqual(0);
  // What is on its way by now does not matter. No table has changed since the last flush.
  expect(other?.flush()).toBe(0);
  expect(other?.write(21 * CLUSTER, CLUSTER, source, 0, false)).toBe(0);
  expect(placeOf(other, 21)).toBe(place);
  writer?.takeWrites(1, tell);
});

it('once a read has waited for a table, what was begun before is told of first', () => {
  const { images } = open(1);
  const [image] = images;
  const ticket = begin(image, 0);
  expect(image?.read(FAR * CLUSTER, 1, new Uint8Array(1), 0)).toBe(0);
  expect(begin(image, CLUSTER)).toBe(IS_FULL);
  image?.takeWrites(1, tell);
  expect([...told]).toEqual([[ticket, 0]]);
  expect(begin(image, CLUSTER)).toBeGreaterThanOrEqual(0);
  image?.takeWrites(1, tell);
});

it('who has begun writes waits for no lock whose holder waits for them', async () => {
  const { handle } = open(0);
  const start = async (program: string, more: object) => {
    const started = await startWaiting(program, { handle, ...more });
    undo.push(() => started.thread.terminate());
    return started;
  };
  const beginner = await start('./beginning-thread.js', { blockBytes: BLOCK, readBytes: FAR * CLUSTER });
  expect(beginner.said).toBeGreaterThanOrEqual(0);
  // A part of a block of a new cluster: with the lock it waits until no write is on its way.
  const part = { writes: true, offsetBytes: 20 * CLUSTER + 100, length: 50 };
  const other = await start('./changing-thread.js', part);
  letGo(other.go);
  await expect.poll(() => Atomics.load(handle.shared, RANGES_WAITING)).toBe(1);
  letGo(beginner.go);
  expect(await beginner.answer).toEqual([{ errno: 0, byte: 1, told: [[beginner.said, 0]] }]);
  expect(await other.answer).toEqual([0]);
});
