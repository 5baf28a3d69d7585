import { readFileSync, readSync, statSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { invariant } from '#tsnbd/base/invariant.js';
import { checkImage } from '#tsnbd/image/check-image.js';
import { ImageError } from '#tsnbd/image/errors.js';
import { type FileCalls, fileCalls } from '#tsnbd/image/file-calls.js';
import { emptyPlace, type Image, LENT_BYTES_MAX, ZERO_FAST, ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { imageFrom, type OpenedImage, openImage } from '#tsnbd/image/open-image.js';
import { firstZero, putRefcount, refcountAt } from '#tsnbd/image/qcow2/refcount-codec.js';
import { newTurnsMemory, WorkerTurns } from '#tsnbd/image/qcow2/worker-turns.js';
import { RESERVE } from '#tsnbd/kernel/fd-calls.js';
import { closePipe, makeLargePipe } from '#tsnbd/kernel/pipe-calls.js';
import { useTemporaryFolder } from '../temporary-folder.js';
import { type Cluster, type Qcow2Bytes, qcow2Bytes, type Wish } from './qcow2-bytes.js';

const { EIO, ENOSPC, EOPNOTSUPP } = constants.errno;
const inFolder = useTemporaryFolder();
const clusterBytes = 4096;
const COPIED = 1n << 63n;
const data = (byte: number): Cluster => ({ kind: 'data', bytes: new Uint8Array(clusterBytes).fill(byte) });

const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});

function good(wish: Partial<Wish> = {}): Qcow2Bytes {
  const clusters = new Map([
    [0, data(1)],
    [1, data(2)],
    [2, data(3)],
  ]);
  return qcow2Bytes({ clusterBits: 12, sizeBytes: 64 * clusterBytes, clusters, ...wish });
}

function open(
  bytes: Uint8Array,
  ...calls: Partial<FileCalls>[]
): { opened: OpenedImage; images: readonly Image[]; path: string } {
  const path = inFolder('disk.qcow2');
  writeFileSync(path, bytes);
  const opened = openImage(path, { readOnly: false });
  undo.push(() => opened.close());
  const images = calls.map((own) => imageFrom(opened.handle, { ...fileCalls, ...own }));
  for (const image of images) undo.push(() => image.close());
  return { opened, images, path };
}

function write(image: Image | undefined, cluster: number, byte = 9): number {
  return image?.write(cluster * clusterBytes, clusterBytes, new Uint8Array(clusterBytes).fill(byte), 0, false) ?? -1;
}

function firstByte(image: Image | undefined, cluster: number): number {
  const target = new Uint8Array(1);
  expect(image?.read(cluster * clusterBytes, 1, target, 0)).toBe(0);
  return target[0] ?? -1;
}

function openError(bytes: Uint8Array): ImageError {
  const path = inFolder('bad.qcow2');
  writeFileSync(path, bytes);
  try {
    openImage(path, { readOnly: false }).close();
  } catch (error) {
    if (error instanceof ImageError) return error;
    throw error;
  }
  throw new Error('it was opened');
}

it.each([1, 2, 4, 8, 16, 32, 64])('a refcount of %i bits is what was put there, and its neighbours stay', (bits) => {
  fc.assert(
    fc.property(fc.nat(63), fc.bigInt({ min: 0n, max: 2n ** BigInt(Math.min(bits, 53)) - 1n }), (index, value) => {
      const bytes = new Uint8Array(8 * 64 + 3).fill(0xa5);
      const before = Array.from({ length: 64 }, (_, i) => refcountAt(bytes, 3, i, bits));
      putRefcount(bytes, 3, index, bits, Number(value));
      const after = Array.from({ length: 64 }, (_, i) => refcountAt(bytes, 3, i, bits));
      expect(after).toEqual(before.map((old, i) => (i === index ? Number(value) : old)));
    }),
  );
});

it.each([1, 2, 4, 8, 16, 32, 64])('the first refcount of %i bits that is 0 is found from anywhere', (bits) => {
  const bytesOf = fc.oneof(fc.constantFrom(0xff, 0x55, 0x11, 0x01, 0xf0), fc.nat(255));
  fc.assert(
    fc.property(fc.array(bytesOf, { minLength: 64, maxLength: 64 }), fc.nat(520), (values, from) => {
      const bytes = Uint8Array.of(0, 0, 0, ...values, 0);
      const end = (64 * 8) / bits;
      let expected = Math.min(from, end);
      while (expected < end && refcountAt(bytes, 3, expected, bits) !== 0) expected += 1;
      expect(firstZero(bytes, 3, Math.min(from, end), end, bits)).toBe(expected);
    }),
  );
});

it('refcounts stand as the specification says: bit 0 is the lowest, bytes are big-endian', () => {
  expect(refcountAt(Uint8Array.of(0b0000_0100), 0, 2, 1)).toBe(1);
  expect(refcountAt(Uint8Array.of(0b0011_0000), 0, 2, 2)).toBe(3);
  expect(refcountAt(Uint8Array.of(0xa5), 0, 0, 4)).toBe(5);
  expect(refcountAt(Uint8Array.of(0, 0, 1, 2), 0, 1, 16)).toBe(0x102);
  expect(refcountAt(Uint8Array.of(0, 0, 0, 0, 0, 0, 1, 2), 0, 0, 64)).toBe(0x102);
});

describe('an image whose tables contradict each other', () => {
  const isMarked = (path: string) => ((readFileSync(path)[79] ?? 0) & 2) !== 0;

  it.each<[string, (image: Qcow2Bytes) => number]>([
    ['the header', () => 0],
    ['the L1 table', ({ l1At }) => l1At],
    ['the refcount table', ({ refcountTableAt }) => refcountTableAt],
    ['a refcount block', ({ refcountTableAt }) => refcountTableAt + clusterBytes],
    ['an L2 table', ({ l2At }) => l2At.get(0) ?? 0],
  ])('is not written where a cluster lies on %s; writes end for good, and reads go on', (_, placeOf) => {
    const image = good();
    const place = placeOf(image);
    // At 0 is nothing: an entry cannot point to the header but by an allocation.
    if (place === 0) {
      image.bytes.writeUInt16BE(0, image.refcountTableAt + clusterBytes);
      image.bytes.writeBigUInt64BE(0n, (image.l2At.get(0) ?? 0) + 8);
    } else image.bytes.writeBigUInt64BE(COPIED | BigInt(place), (image.l2At.get(0) ?? 0) + 8);
    const before = Buffer.from(image.bytes.subarray(place, place + 64));
    const { images, path } = open(image.bytes, {}, {});
    if (place === 0) {
      // The cluster that is counted nowhere is never taken.
      expect(write(images[0], 1)).toBe(0);
      expect(firstByte(images[1], 1)).toBe(9);
      expect(readFileSync(path).subarray(0, 4).toString('latin1')).toBe('QFI\xfb');
      return;
    }
    expect(write(images[0], 1)).toBe(EIO);
    expect(isMarked(path)).toBe(true);
    for (const each of images) {
      expect(write(each, 0)).toBe(EIO);
      expect(each.zero(0, clusterBytes, ZERO_MAY_PUNCH, false)).toBe(EIO);
      expect(each.trim(0, clusterBytes, false)).toBe(EIO);
      expect(firstByte(each, 0)).toBe(1);
    }
    expect(
      readFileSync(path)
        .subarray(place, place + 64)
        .equals(before),
    ).toBe(true);
  });

  it('is marked when a table that is in use is counted as free', () => {
    const image = good();
    const l2 = (image.l2At.get(0) ?? 0) / clusterBytes;
    image.bytes.writeUInt16BE(0, image.refcountTableAt + clusterBytes + 2 * l2);
    const { images, path } = open(image.bytes, {});
    expect(write(images[0], 20)).toBe(EIO);
    expect(isMarked(path)).toBe(true);
  });

  it.each<[string, (image: Qcow2Bytes) => number]>([
    ['the L1 table', ({ l1At }) => l1At],
    ['the refcount table', ({ refcountTableAt }) => refcountTableAt],
    ['a refcount block', ({ refcountTableAt }) => refcountTableAt + clusterBytes],
    ['an L2 table', ({ l2At }) => l2At.get(0) ?? 0],
  ])('is marked, and no table lost, when a cluster is dropped that lies on %s', (_, placeOf) => {
    for (const drop of [(image?: Image) => write(image, 1), (image?: Image) => image?.trim(4096, 4096, false)]) {
      const image = good();
      const place = placeOf(image);
      image.bytes.writeBigUInt64BE(BigInt(place), (image.l2At.get(0) ?? 0) + 8);
      const { images, path } = open(image.bytes, {});
      expect(drop(images[0])).toBe(0);
      expect(images[0]?.flush()).toBe(EIO);
      expect(isMarked(path)).toBe(true);
      const isZero = readFileSync(path)
        .subarray(place, place + clusterBytes)
        .every((byte) => byte === 0);
      expect(isZero).toBe(false);
      expect(firstByte(images[0], 0)).toBe(1);
      for (const step of undo.splice(0).reverse()) step();
    }
  });

  it.each<[string, (image?: Image) => number | undefined]>([
    ['is written', (image) => write(image, 1)],
    ['is written and flushed', (image) => image?.write(4096, 4096, new Uint8Array(4096).fill(9), 0, true)],
    ['is written with its neighbours', (image) => image?.write(4096, 32_768, new Uint8Array(32_768), 0, false)],
    ['is trimmed', (image) => image?.trim(4096, 4096, false)],
    ['is zeroed', (image) => image?.zero(0, 4 * 4096, ZERO_MAY_PUNCH, false)],
  ])('is marked, and loses nothing that it acknowledges, when a cluster %s that is counted as free', (_, change) => {
    for (const entry of [0n, (1n << 62n) | (1n << 58n)]) {
      const image = good();
      image.bytes.writeBigUInt64BE(entry | BigInt(image.bytes.length), (image.l2At.get(0) ?? 0) + 8);
      const { images, path } = open(image.bytes, {});
      expect(change(images[0])).toBe(EIO);
      expect(isMarked(path)).toBe(true);
      expect(write(images[0], 40)).toBe(EIO);
      expect(firstByte(images[0], 2)).toBe(3);
      for (const step of undo.splice(0).reverse()) step();
    }
  });

  it('is not opened for writing if the tables lie on one another, or it is marked', () => {
    const image = good();
    image.bytes.writeBigUInt64BE(COPIED | BigInt(image.refcountTableAt), image.l1At);
    expect(openError(image.bytes)).toMatchObject({ code: 'damaged' });
    expect(openError(image.bytes).message).toMatch(/its L2 table 0 lies where another table is/);
    const marked = good({ incompatible: 2n });
    expect(openError(marked.bytes).message).toMatch(/is marked as corrupt, and is not opened for writing/);
  });
});

describe('what the disk does not do', () => {
  it('one sync that failed ends writing, by all workers', () => {
    let fails = false;
    const { images } = open(good().bytes, { sync: () => (fails ? -EIO : 0) }, {});
    expect(write(images[0], 10)).toBe(0);
    fails = true;
    expect(images[0]?.flush()).toBe(EIO);
    fails = false;
    for (const image of images) {
      expect(image.flush()).toBe(EIO);
      expect(write(image, 0)).toBe(EIO);
      expect(write(image, 30)).toBe(EIO);
      expect(firstByte(image, 0)).toBe(1);
    }
  });

  it('a full disk is told, nothing points to what could not be written, and room helps', () => {
    let isFull = true;
    const calls: Partial<FileCalls> = {
      write: (...call) => (isFull && call[3] === clusterBytes ? -ENOSPC : fileCalls.write(...call)),
    };
    const { images } = open(good().bytes, calls);
    expect(write(images[0], 10)).toBe(ENOSPC);
    expect(firstByte(images[0], 10)).toBe(0);
    isFull = false;
    expect(write(images[0], 10)).toBe(0);
    expect(images[0]?.flush()).toBe(0);
    expect(firstByte(images[0], 10)).toBe(9);
  });
});

describe('storage for new clusters', () => {
  const storedBytes = (path: string) => statSync(path).blocks * 512;

  it('is reserved for many at a time, and what was not used goes back when the image is closed', () => {
    const reserved: number[] = [];
    const { images, path } = open(good().bytes, {
      fallocate: (fd, mode, offsetBytes, length) => {
        if (mode === RESERVE) reserved.push(offsetBytes);
        return fileCalls.fallocate(fd, mode, offsetBytes, length);
      },
    });
    const { size } = statSync(path);
    for (let cluster = 10; cluster < 60; cluster += 1) expect(write(images[0], cluster)).toBe(0);
    expect(reserved).toEqual([size]);
    expect(storedBytes(path)).toBeGreaterThan(2 ** 22);
    for (const step of undo.splice(0).reverse()) step();
    expect(statSync(path).size).toBe(size + 50 * clusterBytes);
    expect(storedBytes(path)).toBeLessThan(size + 50 * clusterBytes + 2 ** 20); // what the file system takes for itself
  });

  it('is left to their writes where none can be reserved', () => {
    const { images, path } = open(good().bytes, { fallocate: () => -ENOSPC });
    expect(write(images[0], 10)).toBe(0);
    expect(images[0]?.flush()).toBe(0);
    expect(firstByte(images[0], 10)).toBe(9);
    expect(storedBytes(path)).toBeLessThan(statSync(path).size + 2 ** 20);
  });
});

describe('the header', () => {
  it('loses what a write makes untrue with the first one, and nothing before', () => {
    const { images, path } = open(good({ autoclear: 0xff01n }).bytes, {});
    expect(firstByte(images[0], 0)).toBe(1);
    expect(readFileSync(path).readBigUInt64BE(88)).toBe(0xff01n);
    expect(write(images[0], 0)).toBe(0);
    expect(readFileSync(path).readBigUInt64BE(88)).toBe(0n);
  });
});

describe('a cluster that was dropped', () => {
  const sizeOf = (path: string) => statSync(path).size;

  function dropAndWrite(images: readonly Image[]): void {
    expect(images[0]?.trim(0, 2 * clusterBytes, false)).toBe(0);
    expect(images[0]?.flush()).toBe(0);
    expect(write(images[0], 40)).toBe(0);
    expect(write(images[0], 41)).toBe(0);
    expect(images[0]?.flush()).toBe(0);
  }

  it('is used again once the entries that have dropped it are on the disk', () => {
    const { images, path } = open(good().bytes, {});
    const before = sizeOf(path);
    dropAndWrite(images);
    expect(sizeOf(path)).toBe(before);
  });

  it('is not used again while another worker may still read it, or has lent it to a pipe', () => {
    const { opened, images, path } = open(good().bytes, {}, {});
    const { handle } = opened;
    invariant(handle.format === 'qcow2' && handle.memory.write !== undefined, 'it is a qcow2 image that is written to');
    const turns = new WorkerTurns(handle.memory.write.turns);
    const before = sizeOf(path);
    turns.begin();
    dropAndWrite(images);
    expect(sizeOf(path)).toBeGreaterThan(before);
    turns.end();
    turns.lend(0, 64, 1);
    expect(write(images[0], 50)).toBe(0);
    expect(images[0]?.flush()).toBe(0);
    const held = sizeOf(path);
    turns.takeBack();
    turns.close();
    expect(write(images[0], 51)).toBe(0);
    expect(images[0]?.flush()).toBe(0); // free from here on
    const freed = sizeOf(path);
    expect(freed).toBeGreaterThanOrEqual(held);
    expect(write(images[0], 52)).toBe(0);
    expect(images[0]?.flush()).toBe(0);
    expect(sizeOf(path)).toBe(freed);
  });

  it('at the end of the file makes it shorter', () => {
    const { opened, images, path } = open(good().bytes, {});
    const before = sizeOf(path);
    for (let cluster = 10; cluster < 30; cluster += 1) expect(write(images[0], cluster)).toBe(0);
    expect(images[0]?.flush()).toBe(0);
    expect(sizeOf(path)).toBe(before + 20 * clusterBytes);
    expect(images[0]?.trim(10 * clusterBytes, 20 * clusterBytes, false)).toBe(0);
    expect(images[0]?.flush()).toBe(0);
    expect(sizeOf(path)).toBe(before);
    expect(opened.sizeBytes).toBe(64 * clusterBytes);
  });
});

it('zeroes that would have to be written are not, if they were to be fast', () => {
  const { images } = open(good().bytes, {});
  const [image] = images;
  expect(image?.zero(100, 200, ZERO_FAST, false)).toBe(EOPNOTSUPP);
  expect(image?.zero(0, 2 * clusterBytes + 1, ZERO_FAST, false)).toBe(EOPNOTSUPP);
  expect(firstByte(image, 0)).toBe(1);
  expect(image?.zero(0, 2 * clusterBytes, ZERO_FAST, false)).toBe(0);
  expect([0, 1, 2].map((cluster) => firstByte(image, cluster))).toEqual([0, 0, 3]);
  expect(image?.zero(100, 200, ZERO_FAST, false)).toBe(0);
});

it('a write to a cluster behind the end of the file is not cut off by a flush that makes the file longer', async () => {
  const far = 50;
  const image = good();
  image.bytes.writeBigUInt64BE(COPIED | BigInt(far * clusterBytes), (image.l2At.get(0) ?? 0) + 8 * 5);
  image.bytes.writeUInt16BE(1, image.refcountTableAt + clusterBytes + 2 * far);
  const fields = new Int32Array(new SharedArrayBuffer(8));
  const [BEGIN, IS_DONE] = [0, 1];
  const seek = (fd: number, offsetBytes: number, what: number) => {
    const found = fileCalls.seek(fd, offsetBytes, what);
    Atomics.store(fields, BEGIN, 1);
    Atomics.notify(fields, BEGIN);
    Atomics.wait(fields, IS_DONE, 0, 200);
    return found;
  };
  const { opened, images } = open(image.bytes, { seek });
  const program = `
    import { workerData } from 'node:worker_threads';
    const { imageFrom } = await import(workerData.module);
    const image = imageFrom(workerData.handle);
    Atomics.wait(workerData.fields, 0, 0);
    image.write(5 * 4096, 4096, new Uint8Array(4096).fill(7), 0, false);
    Atomics.store(workerData.fields, 1, 1);
    Atomics.notify(workerData.fields, 1);
    image.close();`;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(program)}`), {
    workerData: { module: import.meta.resolve('#tsnbd/image/open-image.js'), handle: opened.handle, fields },
  });
  const ended = new Promise((resolve) => worker.once('exit', resolve));
  await new Promise((resolve) => worker.once('online', resolve));
  expect(images[0]?.write(10 * clusterBytes, 512, new Uint8Array(512).fill(9), 0, false)).toBe(0);
  expect(images[0]?.flush()).toBe(0);
  await ended;
  expect(firstByte(images[0], 5)).toBe(7);
  expect(firstByte(images[0], 10)).toBe(9);
});

describe('a worker whose client reads nothing', () => {
  const small = 512;
  const clusters = 40_960;

  it('has no writer wait for the disk with each change while a read of it is not answered, though more is dropped than can wait', () => {
    let syncs = 0;
    const sync = (fd: number) => {
      syncs += 1;
      return fileCalls.sync(fd);
    };
    const { images } = open(qcow2Bytes({ clusterBits: 9, sizeBytes: 2 * clusters * small }).bytes, {}, { sync });
    const [reader, writer] = images;
    invariant(reader !== undefined && writer !== undefined, 'there are two');
    expect(writer.write(0, clusters * small, new Uint8Array(clusters * small).fill(5), 0, false)).toBe(0);
    expect(reader.findPlace(0, small, emptyPlace())).toBe(true);
    expect(writer.trim(small, small, false)).toBe(0);
    expect(writer.flush()).toBe(0);
    syncs = 0;
    for (let cluster = 3; cluster < clusters; cluster += 2) expect(writer.trim(cluster * small, small, false)).toBe(0);
    for (let cluster = 1; cluster < 100; cluster += 2)
      expect(writer.write(cluster * small, small, new Uint8Array(small), 0, false)).toBe(0);
    expect(syncs).toBe(0);
    reader.letGoPlaces();
  });

  it('and that has lent clusters to its pipe keeps no others from being freed: writers neither wait for the disk with each change, nor lose clusters', () => {
    const empty = qcow2Bytes({ clusterBits: 9, sizeBytes: 2 * clusters * small });
    let syncs = 0;
    const sync = (fd: number) => {
      syncs += 1;
      return fileCalls.sync(fd);
    };
    const { images, path } = open(empty.bytes, {}, { sync });
    const [reader, writer] = images;
    const pipe = makeLargePipe(1 << 20);
    invariant(pipe !== undefined && reader !== undefined && writer !== undefined, 'there are fds');
    undo.push(() => closePipe(pipe));
    expect(writer.write(0, clusters * small, new Uint8Array(clusters * small).fill(5), 0, false)).toBe(0);
    expect(writer.flush()).toBe(0);
    const lent = 32_768;
    expect(reader.readIntoPipe(0, lent, pipe.writeFd)).toBe(lent);
    syncs = 0;
    // Every second, so that no two become one range.
    for (let cluster = 0; cluster < clusters; cluster += 2) expect(writer.trim(cluster * small, small, false)).toBe(0);
    expect(syncs).toBeLessThan(20);
    for (let flush = 0; flush < 3; flush += 1) expect(writer.flush()).toBe(0);
    const bytesBefore = statSync(path).size;
    for (let cluster = clusters; cluster < clusters + 10_000; cluster += 1)
      expect(writer.write(cluster * small, small, new Uint8Array(small).fill(6), 0, false)).toBe(0);
    expect(statSync(path).size - bytesBefore).toBeLessThan(2_000 * small);
    const got = Buffer.alloc(lent);
    expect(readSync(pipe.readFd, got, 0, lent, null)).toBe(lent);
    expect(got.every((byte) => byte === 5)).toBe(true);
    for (const step of undo.splice(0).reverse()) step();
    const watch = { onFinding: () => {}, onProgress: () => {} };
    expect(checkImage(path, { repair: undefined }, watch)).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  it('holds no more than what may be on its way, and in no more pieces than it can tell', () => {
    const memory = newTurnsMemory();
    const [turns, other] = [new WorkerTurns(memory), new WorkerTurns(memory)];
    const held = () => [...other.lentClusters()].sort((a, b) => a - b);
    const piece = 65_536;
    for (let cluster = 0; cluster < 1_000; cluster += 1) expect(turns.lend(cluster, cluster + 1, piece)).toBe(true);
    const most = LENT_BYTES_MAX / piece;
    expect(held()).toEqual(Array.from({ length: most }, (_, index) => 1_000 - most + index));
    expect(other.areLent).toBe(true);
    turns.takeBack();
    expect(held()).toEqual([]);
    expect(other.areLent).toBe(false);
    for (let cluster = 0; cluster < 512; cluster += 1) expect(turns.lend(cluster, cluster + 1, 512)).toBe(true);
    expect(turns.lend(600, 601, 512)).toBe(false);
    expect(held()).toHaveLength(512);
    turns.takeBack();
    expect(turns.lend(600, 602, 512)).toBe(true);
    expect(held()).toEqual([600, 601]);
  });
});

describe('what was lent to a pipe stays as it is, until whoever reads it has it,', () => {
  it.each([9, 12, 16])('when its worker has ended too, with clusters of 2^%i bytes', (clusterBits) => {
    const bytes = 2 ** clusterBits;
    const count = 131_072 / bytes;
    const clusters = Array.from({ length: count }, (_, cluster) => {
      return [cluster, { kind: 'data', bytes: new Uint8Array(bytes).fill(5) }] as const;
    });
    const image = qcow2Bytes({
      clusterBits,
      sizeBytes: 4 * count * bytes,
      clusters: new Map<number, Cluster>(clusters),
    });
    const { images } = open(image.bytes, {}, {});
    const [reader, writer] = images;
    const pipe = makeLargePipe(1 << 20);
    invariant(pipe !== undefined && reader !== undefined && writer !== undefined, 'there are fds');
    const lent = reader.readIntoPipe(0, 32_768, pipe.writeFd);
    expect(lent).toBe(32_768);
    reader.close();
    expect(writer.trim(0, count * bytes, false)).toBe(0);
    for (let flush = 0; flush < 3; flush += 1) expect(writer.flush()).toBe(0);
    for (let cluster = count; cluster < 3 * count; cluster += 1) {
      expect(writer.write(cluster * bytes, bytes, new Uint8Array(bytes).fill(6), 0, false)).toBe(0);
    }
    const got = Buffer.alloc(lent);
    expect(readSync(pipe.readFd, got, 0, lent, null)).toBe(lent);
    expect(got.every((byte) => byte === 5)).toBe(true);
    closePipe(pipe);
  });
});
