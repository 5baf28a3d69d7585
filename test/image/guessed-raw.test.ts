import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { Worker } from 'node:worker_threads';
import { afterEach, expect, it } from 'vitest';
import { fileCalls } from '#tsnbd/image/file-calls.js';
import { type Image, ZERO_FAST, ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { imageFrom, type OpenedImage, type OpenOptions, openImage } from '#tsnbd/image/open-image.js';
import { EDGES_LOCK } from '#tsnbd/image/shared-layout.js';
import { useTemporaryFolder } from './temporary-folder.js';

const { EOPNOTSUPP, EPERM } = constants.errno;
const inFolder = useTemporaryFolder();
let opened: OpenedImage | undefined;
afterEach(() => opened?.close());

function open(format?: 'raw', fileBytes = 4096, modes: Pick<OpenOptions, 'cache' | 'discard' | 'detectZeroes'> = {}) {
  const path = inFolder('disk.raw');
  writeFileSync(path, Buffer.alloc(fileBytes, 0x55));
  opened = openImage(path, { format, readOnly: false, ...modes });
  return { path, image: imageFrom(opened.handle) };
}

const qcow2 = Buffer.concat([Buffer.from('QFI\xfb\0\0\0\x03', 'latin1'), Buffer.alloc(504)]);

it('a guest cannot turn an image of a guessed format into a qcow2', () => {
  const { path, image } = open();
  expect(image.write(0, 512, qcow2, 0, false)).toBe(EPERM);
  expect(image.write(0, 8, qcow2, 0, false)).toBe(EPERM);
  expect(image.write(0, 3, qcow2, 0, false)).toBe(0);
  expect(image.write(3, 1, qcow2, 3, false)).toBe(EPERM);
  expect(image.write(2, 500, qcow2, 2, true)).toBe(EPERM);
  expect(readFileSync(path).subarray(0, 5).toString('latin1')).toBe('QFIUU');
});

it('nor into a vdi, whose magic stands further on', () => {
  const { image } = open();
  expect(image.write(64, 4, Buffer.from([0x7f, 0x10, 0xda, 0xbe]), 0, false)).toBe(EPERM);
});

it('nor by zeroes, which some formats have in their first bytes', () => {
  const { path, image } = open();
  expect(image.write(0, 4, Buffer.from('QEDx'), 0, false)).toBe(0);
  for (const ways of [ZERO_MAY_PUNCH, 0]) expect(image.zero(3, 1, ways, false)).toBe(EPERM);
  expect(image.trim(3, 509, true)).toBe(EPERM);
  expect(readFileSync(path).subarray(0, 4).toString()).toBe('QEDx');
  expect(image.zero(0, 4096, ZERO_MAY_PUNCH, false)).toBe(0);
});

/** Another connection that writes when it is told to: `goOn` tells it, waits for its write, up to a limit, and answers whether that is done. */
async function startOther(offsetBytes: number, bytes: Buffer) {
  if (opened === undefined) throw new Error('nothing is open');
  const signs = new Int32Array(new SharedArrayBuffer(8));
  const other = new Worker(new URL('./writing-thread.js', import.meta.url), {
    workerData: { handle: opened.handle, signs, offsetBytes, bytes },
  });
  await once(other, 'message');
  const goOn = (limitMs: number) => {
    Atomics.store(signs, 0, 1);
    Atomics.notify(signs, 0);
    return Atomics.wait(signs, 1, 0, limitMs) !== 'timed-out';
  };
  return { handle: opened.handle, answer: once(other, 'message'), goOn };
}

it('nor by two connections that write a part each at the same time', async () => {
  const { path } = open();
  const { handle, answer, goOn } = await startOther(2, qcow2.subarray(2, 4));
  const image = imageFrom(handle, {
    ...fileCalls,
    // The other one writes between this one's look and its write, unless it is kept from that.
    read: (...call) => {
      const result = fileCalls.read(...call);
      goOn(300);
      return result;
    },
  });
  expect(image.write(0, 2, qcow2, 0, false)).toBe(0);
  expect(await answer).toEqual([EPERM]);
  image.close();
  expect(readFileSync(path).subarray(0, 4).toString('latin1')).toBe('QFUU');
});

const LARGE_BYTES = 1_048_576;
it.each<[string, (image: Image) => number]>([
  ['a zeroing', (image) => image.zero(0, LARGE_BYTES, ZERO_MAY_PUNCH, false)],
  ['one that is to be fast', (image) => image.zero(0, LARGE_BYTES, ZERO_MAY_PUNCH | ZERO_FAST, false)],
  ['a trim', (image) => image.trim(0, LARGE_BYTES, false)],
  ['the sync of a write', (image) => image.write(0, 512, Buffer.alloc(512, 7), 0, true)],
  ['the sync of a zeroing', (image) => image.zero(0, 512, 0, true)],
  ['the sync of a trim', (image) => image.trim(0, 512, true)],
])('%s of its first bytes that takes long holds up no other write there', async (_, change) => {
  const { path } = open(undefined, LARGE_BYTES);
  const { handle, answer, goOn } = await startOther(100, Buffer.from('other'));
  let wentOn: boolean | undefined;
  const image = imageFrom(handle, {
    ...fileCalls,
    fallocate: (fd, mode, offsetBytes, length) => {
      if (length > LARGE_BYTES / 2) wentOn = goOn(5_000);
      return fileCalls.fallocate(fd, mode, offsetBytes, length);
    },
    sync: (fd) => {
      wentOn = goOn(5_000);
      return fileCalls.sync(fd);
    },
  });
  expect(change(image)).toBe(0);
  expect(wentOn).toBe(true);
  expect(await answer).toEqual([0]);
  image.close();
  expect(readFileSync(path).subarray(100, 105).toString()).toMatch(/^(other|\0{5})$/);
});

it('with --cache=writethrough every write is synced, without the lock of the edges', () => {
  open(undefined, LARGE_BYTES, { cache: 'writethrough' });
  const handle = opened?.handle;
  if (handle?.format !== 'raw') throw new Error('the image is not taken for raw');
  const locks: number[] = [];
  const sync = (fd: number) => {
    locks.push(Atomics.load(handle.shared, EDGES_LOCK));
    return fileCalls.sync(fd);
  };
  const image = imageFrom(handle, { ...fileCalls, sync });
  expect(image.write(0, 50, Buffer.alloc(50, 7), 0, false)).toBe(0);
  expect(locks).toEqual([0]);
  image.close();
});

it('a trim that is ignored is none that could be refused', () => {
  const { path, image } = open(undefined, 4096, { discard: 'ignore' });
  expect(image.write(0, 4, Buffer.from('QEDx'), 0, false)).toBe(0);
  expect(image.trim(3, 509, false)).toBe(0);
  expect(readFileSync(path).subarray(0, 5).toString()).toBe('QEDxU');
});

it('zeroes that are written are refused, or zeroed, as any', () => {
  const { path, image } = open(undefined, 4096, { detectZeroes: 'on' });
  expect(image.write(0, 4, Buffer.from('QEDx'), 0, false)).toBe(0);
  expect(image.write(3, 1, Buffer.alloc(1), 0, false)).toBe(EPERM);
  expect(image.write(2, 2, Buffer.alloc(2), 0, false)).toBe(0);
  expect(readFileSync(path).subarray(0, 5)).toEqual(Buffer.from('QE\0\0U'));
});

it('what takes long is refused before it begins where the edges would be another format’s', () => {
  const { path, image } = open(undefined, LARGE_BYTES);
  expect(image.write(0, 4, Buffer.from('QEDx'), 0, false)).toBe(0);
  for (const change of [
    () => image.zero(3, LARGE_BYTES - 3, ZERO_MAY_PUNCH, false),
    () => image.trim(3, LARGE_BYTES - 3, false),
  ]) {
    expect(change()).toBe(EPERM);
    expect(readFileSync(path).equals(Buffer.concat([Buffer.from('QEDx'), Buffer.alloc(LARGE_BYTES - 4, 0x55)]))).toBe(
      true,
    );
  }
});

it('a zeroing that cannot be fast changes nothing, the edges neither', () => {
  const { path } = open(undefined, LARGE_BYTES);
  if (opened === undefined) throw new Error('nothing is open');
  const image = imageFrom(opened.handle, { ...fileCalls, fallocate: () => -EOPNOTSUPP });
  expect(image.zero(0, LARGE_BYTES, ZERO_MAY_PUNCH | ZERO_FAST, false)).toBe(EOPNOTSUPP);
  expect(readFileSync(path).equals(Buffer.alloc(LARGE_BYTES, 0x55))).toBe(true);
  expect(image.zero(0, LARGE_BYTES, ZERO_MAY_PUNCH, false)).toBe(0);
  expect(readFileSync(path).equals(Buffer.alloc(LARGE_BYTES))).toBe(true);
  image.close();
});

it.each([
  [0, LARGE_BYTES],
  [0, 5_000],
  [0, 100],
  [600, LARGE_BYTES - 600],
  [4_096, LARGE_BYTES - 4_096],
  [LARGE_BYTES - 4_200, 4_200],
  [LARGE_BYTES - 300, 300],
  [100, LARGE_BYTES - 200],
])('of a zeroing from %i on, %i bytes, each byte is a zero, and no other', (offsetBytes, length) => {
  const { path, image } = open(undefined, LARGE_BYTES);
  for (const ways of [ZERO_MAY_PUNCH, 0, ZERO_FAST]) {
    expect(image.write(0, LARGE_BYTES, Buffer.alloc(LARGE_BYTES, 0x55), 0, false)).toBe(0);
    expect(image.zero(offsetBytes, length, ways, false)).toBe(0);
    const expected = Buffer.alloc(LARGE_BYTES, 0x55).fill(0, offsetBytes, offsetBytes + length);
    expect(readFileSync(path).equals(expected)).toBe(true);
  }
});

const footer = Buffer.concat([Buffer.from('conectix'), Buffer.alloc(504)]);

it('nor into one that is known by its last sector', () => {
  const { path, image } = open();
  expect(image.write(4096 - 512, 512, footer, 0, false)).toBe(EPERM);
  expect(image.write(4096 - 512, 4, footer, 0, false)).toBe(0);
  expect(image.write(4096 - 508, 508, footer, 4, true)).toBe(EPERM);
  expect(image.write(4096 - 1024, 512, footer, 0, false)).toBe(0);
  expect(image.write(0, 4096, Buffer.concat([Buffer.alloc(3584), footer]), 0, false)).toBe(EPERM);
  expect(readFileSync(path).subarray(-512, -504).toString()).toBe('coneUUUU');
});

it.each([0, 12, 24])('nor by making a file longer that has no whole sectors, %i bytes', (growthBytes) => {
  const { path, image } = open(undefined, 1000);
  const offsetBytes = 1000 + growthBytes - 512;
  expect(image.write(offsetBytes, 8, footer, 0, false)).toBe(EPERM);
  expect(image.write(offsetBytes - 1, 8, footer, 0, false)).toBe(offsetBytes === 488 ? 0 : EPERM);
  if (growthBytes > 0) expect(image.write(1000 + growthBytes - 1, 1, footer, 0, false)).toBe(0);
  image.close();
  opened?.close();
  opened = openImage(path, { readOnly: false });
});

it('everything else is written as it is', () => {
  const { path, image } = open();
  expect(image.write(512, 512, qcow2, 0, false)).toBe(0);
  expect(image.write(1, 511, qcow2, 0, false)).toBe(0);
  expect(image.write(0, 4096, Buffer.alloc(4106, 9), 10, true)).toBe(0);
  expect(readFileSync(path).equals(Buffer.alloc(4096, 9))).toBe(true);
  expect(image.zero(0, 100, ZERO_MAY_PUNCH, false)).toBe(0);
  expect(image.trim(2048, 2048, false)).toBe(0);
  expect(image.flush()).toBe(0);
  const target = Buffer.alloc(200);
  expect(image.read(0, 200, target, 0)).toBe(0);
  expect(target.equals(Buffer.concat([Buffer.alloc(100), Buffer.alloc(100, 9)]))).toBe(true);
  image.close();
});

it('a user who says -f raw may let the guest write what it likes', () => {
  const { path, image } = open('raw');
  expect(image.write(0, 512, qcow2, 0, true)).toBe(0);
  expect(readFileSync(path).subarray(0, 512).equals(qcow2)).toBe(true);
});

it('says so when it opens the image', () => {
  open();
  expect(opened?.notices.join()).toContain('say -f raw if it is');
  opened?.close();
  open('raw');
  expect(opened?.notices).toEqual([]);
});
