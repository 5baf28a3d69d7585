import { closeSync, constants as fsConstants, fstatSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { invariant } from '#tsnbd/base/invariant.js';
import { DirectCalls } from '#tsnbd/image/direct-io.js';
import { fileCalls } from '#tsnbd/image/file-calls.js';
import { openDirect } from '#tsnbd/image/open-direct.js';
import { openFile } from '#tsnbd/image/open-file.js';
import { imageFrom, type OpenedImage, openImage } from '#tsnbd/image/open-image.js';
import { RawImage } from '#tsnbd/image/raw.js';
import { newSharedFields, rangeTable } from '#tsnbd/image/shared-layout.js';
import { openFdsOf, openFlags } from '../open-fds.js';
import { useTemporaryFolder } from './temporary-folder.js';

const { EINVAL, EIO } = constants.errno;
const inFolder = useTemporaryFolder();
const opened: OpenedImage[] = [];
afterEach(() => {
  for (const image of opened.splice(0)) image.close();
});

function open(content: Uint8Array, cache: 'none' | 'directsync' = 'none') {
  const path = inFolder('disk.raw');
  writeFileSync(path, content);
  const image = openImage(path, { format: 'raw', readOnly: false, cache });
  opened.push(image);
  return { path, ...image };
}

const block = Buffer.alloc(4096, 7);

describe('direct I/O', () => {
  it('goes past the page cache: the fd is O_DIRECT, and the kernel refuses what is not aligned', () => {
    const { handle } = open(Buffer.alloc(8192, 0x55));
    const fd = handle.direct?.fd ?? -1;
    expect(openFlags(fd) & fsConstants.O_DIRECT).not.toBe(0);
    expect(fileCalls.read(fd, Buffer.alloc(600), 1, 511, 1)).toBe(-EINVAL);
    expect(imageFrom(handle).read(1, 511, Buffer.alloc(600), 1)).toBe(0);
  });

  it('changes a part of a block, and nothing around it', () => {
    const { handle, path } = open(Buffer.alloc(16_384, 0x55));
    const image = imageFrom(handle);
    expect(image.write(5000, 7, block, 0, false)).toBe(0);
    expect(image.write(8191, 4098, Buffer.alloc(4098, 9), 0, true)).toBe(0);
    const expected = Buffer.alloc(16_384, 0x55);
    expected.fill(7, 5000, 5007).fill(9, 8191, 12_289);
    expect(readFileSync(path).equals(expected)).toBe(true);
    image.close();
  });

  it('fills the block that the file ends in with zeroes, not with what the memory held', () => {
    const { handle, path } = open(Buffer.alloc(700, 0x55));
    const image = imageFrom(handle, {
      ...fileCalls,
      read: (fd, target, at, length, offset) => {
        const got = fileCalls.read(fd, target, at, length, offset);
        target.fill(0xee, at + got, at + length);
        return got;
      },
    });
    expect(image.write(1000, 1, block, 0, false)).toBe(0);
    const expected = Buffer.alloc(1024).fill(0x55, 0, 700);
    expected[1000] = 7;
    expect(readFileSync(path).equals(expected)).toBe(true);
  });

  it('takes requests that are longer than its buffer', () => {
    const { handle, path } = open(Buffer.alloc(4 << 20, 0x55));
    const image = imageFrom(handle);
    const data = Buffer.alloc(3 << 20).map((_, i) => i % 251);
    expect(image.write(100, data.length, data, 0, true)).toBe(0);
    const target = Buffer.alloc(data.length);
    expect(image.read(100, data.length, target, 0)).toBe(0);
    expect(target.equals(data)).toBe(true);
    expect(
      readFileSync(path)
        .subarray(100, 100 + data.length)
        .equals(data),
    ).toBe(true);
    image.close();
  });

  it('answers EIO where somebody cut the file, also to the change of a part', () => {
    const { handle, path } = open(Buffer.alloc(16_384, 0x55));
    truncateSync(path, 5000);
    const image = imageFrom(handle);
    expect(image.read(4096, 4096, Buffer.alloc(4096), 0)).toBe(EIO);
    expect(image.write(8192, 100, block, 0, false)).toBe(EIO);
    expect(fstatSync(handle.fd).size).toBe(5000);
    expect(image.write(8192, 4096, block, 0, false)).toBe(0);
  });

  it('has no use for a hint that a range will be read', () => {
    const { handle } = open(block);
    expect(new DirectCalls({ ...handle, fileBytes: 4096, direct: { fd: 99_999, blockBytes: 512 } }).willNeed()).toBe(0);
    expect(imageFrom(handle).cache(0, 4096)).toBe(0);
  });

  it('closes its fd with the image', () => {
    const { path } = open(block, 'directsync');
    expect(openFdsOf(path)).toBe(2);
    opened.pop()?.close();
    expect(openFdsOf(path)).toBe(0);
  });
});

describe('connections that write parts of the same blocks at once', () => {
  const rounds = 400;
  const parts = 4;

  // Each adds 1 to a byte of its own in each of two blocks, and looks whether the others left it as it was.
  const program = `
    import { workerData, parentPort } from 'node:worker_threads';
    const { imageFrom } = await import(workerData.module);
    const { handle, number, rounds } = workerData;
    const image = imageFrom(handle);
    const byte = new Uint8Array(1);
    let wrong = 0;
    for (let i = 0; i < rounds; i += 1) {
      const at = (i % 2) * 512 + number * 128;
      if (image.read(at, 1, byte, 0) !== 0 || byte[0] !== Math.floor(i / 2) % 256) wrong += 1;
      byte[0] += 1;
      if (image.write(at, 1, byte, 0, false) !== 0) wrong += 1;
    }
    image.close();
    parentPort.postMessage(wrong);
  `;

  it('lose nothing of each other', async () => {
    const { handle } = open(Buffer.alloc(4096));
    const results = await Promise.all(
      Array.from({ length: parts }, (_, number) => {
        const workerData = { module: import.meta.resolve('#tsnbd/image/open-image.js'), handle, number, rounds };
        const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(program)}`), { workerData });
        return new Promise((resolve, reject) => {
          worker.on('message', resolve);
          worker.on('error', reject);
        });
      }),
    );
    expect(results).toEqual(new Array(parts).fill(0));
  });

  it('nor does a hole get filled again that is punched meanwhile', () => {
    const { handle, path } = open(Buffer.alloc(4096, 0x55));
    const { direct } = handle;
    if (direct === undefined) throw new Error('not direct');
    // Another worker would have to wait, so we only look at the first range of the table, the last that is free.
    const shared = newSharedFields();
    const held: number[][] = [];
    const look = () => void held.push([...rangeTable(shared)].slice(-3));
    const calls = new DirectCalls(
      { direct: { ...direct, blockBytes: 1024 }, fileBytes: 4096, shared },
      {
        ...fileCalls,
        read: (...call) => {
          look();
          return fileCalls.read(...call);
        },
        write: (...call) => {
          look();
          return fileCalls.write(...call);
        },
        fallocate: (...call) => {
          look();
          return fileCalls.fallocate(...call);
        },
      },
    );
    invariant(handle.format === 'raw', 'the image was opened as raw');
    const image = new RawImage({ ...handle, shared }, calls);
    const [isShared, isAlone] = [1, 2];
    expect(image.write(2000, 1, block, 0, false)).toBe(0);
    expect(held.splice(0)).toEqual(new Array(2).fill([isAlone, 1024, 2048]));
    expect(image.write(1024, 2048, block, 0, false)).toBe(0);
    expect(held.splice(0)).toEqual([[isShared, 1024, 3072]]);
    expect(image.trim(100, 3000, false)).toBe(0);
    expect(held.splice(0)).toEqual([[isShared, 100, 3100]]);
    expect(rangeTable(shared).at(-3)).toBe(0);
    expect(readFileSync(path).indexOf(0)).toBe(100);
  });
});

describe('direct I/O is refused', () => {
  const refused = (act: () => void) => {
    try {
      act();
    } catch (error) {
      return error as Error & { code: string };
    }
    throw new Error('it was opened');
  };

  it('with the way out, where the file system has none', () => {
    const path = '/sys/devices/system/cpu/online';
    const { code, message } = refused(() => openImage(path, { readOnly: true, cache: 'none' }).close());
    expect(code).toBe('system');
    expect(message).toContain(`${path} cannot be opened for direct I/O (O_DIRECT)`);
    expect(message).toContain('choose a cache mode that uses the page cache');
    expect(openFdsOf(path)).toBe(0);
  });

  it.each([
    ['a read does not go well', 4096, { ...fileCalls, read: () => -EINVAL }, 'invalid argument (EINVAL)'],
    ['the size is no multiple of the blocks', 4196, fileCalls, 'its size of 4196 bytes is no multiple of'],
  ])('when %s, and leaves no fd open', (_, sizeBytes, calls, text) => {
    const path = inFolder('disk.raw');
    writeFileSync(path, block);
    const file = openFile(path, false);
    const { code, message } = refused(() => openDirect(path, file, sizeBytes, false, calls));
    expect(code).toBe('system');
    expect(message).toContain(text);
    expect(openFdsOf(path)).toBe(1);
    closeSync(file.fd);
  });
});
