import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createImage } from '#tsnbd/image/create-image.js';
import { ImageError } from '#tsnbd/image/errors.js';
import { openImage } from '#tsnbd/image/open-image.js';
import { RAW_PREALLOCATIONS, type RawPreallocation } from '#tsnbd/image/preallocations.js';
import { openFdsOf } from '../open-fds.js';
import { useTemporaryFolder } from './temporary-folder.js';

const MIB = 1_048_576;
const inFolder = useTemporaryFolder();
const path = () => inFolder('disk.raw');

const quiet = { stop: new AbortController().signal, onBegin: () => {}, onProgress: () => {} };
const create = (at: string, sizeBytes: number, preallocation: RawPreallocation, watch = quiet) =>
  createImage({ path: at, sizeBytes, form: { format: 'raw', preallocation } }, watch);

async function failure(act: () => Promise<void>): Promise<ImageError> {
  try {
    await act();
  } catch (error) {
    if (error instanceof ImageError) return error;
    throw error;
  }
  throw new Error('it was made');
}

describe('a new raw image', () => {
  it.each(RAW_PREALLOCATIONS)('has its size and is zeroes (%s)', async (preallocation) => {
    await create(path(), 3 * MIB, preallocation);
    const { size, blocks, mode } = statSync(path());
    expect(size).toBe(3 * MIB);
    expect(blocks * 512 >= 3 * MIB).toBe(preallocation !== 'off');
    expect(mode & 0o777).toBe(0o644 & ~process.umask());
    expect(readFileSync(path()).equals(Buffer.alloc(3 * MIB))).toBe(true);
  });

  it.each(RAW_PREALLOCATIONS)('is rounded up to whole sectors, and may have none (%s)', async (preallocation) => {
    await create(path(), 1_000, preallocation);
    expect(statSync(path()).size).toBe(1_024);
    await create(path(), 0, preallocation);
    expect(statSync(path()).size).toBe(0);
  });

  it('takes the place of what a file held', async () => {
    writeFileSync(path(), Buffer.alloc(2 * MIB, 7));
    symlinkSync(path(), inFolder('link'));
    await create(inFolder('link'), MIB, 'off');
    expect(readFileSync(path()).equals(Buffer.alloc(MIB))).toBe(true);
    expect(statSync(path()).blocks).toBe(0);
  });
});

describe('an image is not made', () => {
  it('of one that is in use, which keeps what it holds', async () => {
    writeFileSync(path(), Buffer.alloc(MIB, 7));
    for (const readOnly of [true, false]) {
      const image = openImage(path(), { format: 'raw', readOnly });
      expect(await failure(() => create(path(), 512, 'off'))).toMatchObject({
        code: 'in-use',
        message: expect.stringMatching(/is in use by .*process/),
      });
      image.close();
    }
    expect(readFileSync(path()).equals(Buffer.alloc(MIB, 7))).toBe(true);
    await create(path(), 512, 'off');
  });

  it('where there can be none', async () => {
    const at = (name: string) => failure(() => create(inFolder(name), 512, 'off'));
    expect(await at('nowhere/disk.raw')).toMatchObject({ code: 'system', message: expect.stringContaining('ENOENT') });
    expect(await at('.')).toMatchObject({ code: 'system', message: expect.stringContaining('EISDIR') });
    execFileSync('mkfifo', [inFolder('pipe')]);
    expect(await at('pipe')).toMatchObject({ code: 'not-an-image' });
    expect(await failure(() => create('/dev/null', 512, 'off'))).toMatchObject({ code: 'not-an-image' });
    expect(existsSync(inFolder('pipe'))).toBe(true);
  });

  // With 'full' it would take until the disk is full.
  it.each(['off', 'falloc'] as const)('too large, and nothing is left (%s)', async (preallocation) => {
    const most = 2 ** 53 - 512;
    expect(await failure(() => create(path(), most, preallocation))).toMatchObject({
      code: 'system',
      message: expect.stringMatching(/(cannot make|cannot reserve) .*disk\.raw.*: .*\((EFBIG|ENOSPC|EINVAL)\)$/),
    });
    expect(existsSync(path())).toBe(false);
    expect((await failure(() => create(path(), most + 1, preallocation))).code).toBe('not-an-image');
    expect(existsSync(path())).toBe(false);
    writeFileSync(path(), 'x');
    expect((await failure(() => create(path(), most, preallocation))).code).toBe('system');
    expect(statSync(path()).size).toBe(0);
  });

  it('when it is no longer wanted', async () => {
    const told: number[][] = [];
    const controller = new AbortController();
    const onProgress = (...bytes: number[]) => {
      told.push(bytes);
      if (told.length === 2) controller.abort();
    };
    const watch = { ...quiet, stop: controller.signal, onProgress };
    const error = await failure(() => create(path(), 4 * MIB, 'full', watch));
    expect(error).toMatchObject({ code: 'interrupted', message: `interrupted; did not make ${path()}` });
    expect(told).toEqual([
      [MIB, 4 * MIB],
      [2 * MIB, 4 * MIB],
    ]);
    expect(existsSync(path())).toBe(false);
  });

  it('and no descriptor stays open', async () => {
    writeFileSync(path(), 'x');
    await failure(() => create(path(), 2 ** 53 - 512, 'off'));
    await create(path(), 512, 'full');
    expect(openFdsOf(path())).toBe(0);
  });
});
