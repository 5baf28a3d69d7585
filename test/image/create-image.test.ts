import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createRawImage } from '#tsnbd/image/create-image.js';
import { ImageError } from '#tsnbd/image/errors.js';
import { openImage } from '#tsnbd/image/open-image.js';
import { PREALLOCATIONS } from '#tsnbd/image/preallocations.js';
import { openFdsOf } from './open-fds.js';
import { useTemporaryFolder } from './temporary-folder.js';

const MIB = 1_048_576;
const inFolder = useTemporaryFolder();
const path = () => inFolder('disk.raw');

function failure(act: () => void): ImageError {
  try {
    act();
  } catch (error) {
    if (error instanceof ImageError) return error;
    throw error;
  }
  throw new Error('it was made');
}

describe('a new raw image', () => {
  it.each(PREALLOCATIONS)('has its size and is zeroes (%s)', (preallocation) => {
    createRawImage(path(), 3 * MIB, preallocation);
    const { size, blocks, mode } = statSync(path());
    expect(size).toBe(3 * MIB);
    expect(blocks * 512 >= 3 * MIB).toBe(preallocation !== 'off');
    expect(mode & 0o777).toBe(0o644 & ~process.umask());
    expect(readFileSync(path()).equals(Buffer.alloc(3 * MIB))).toBe(true);
  });

  it.each(PREALLOCATIONS)('is rounded up to whole sectors, and may have none (%s)', (preallocation) => {
    createRawImage(path(), 1_000, preallocation);
    expect(statSync(path()).size).toBe(1_024);
    createRawImage(path(), 0, preallocation);
    expect(statSync(path()).size).toBe(0);
  });

  it('takes the place of what a file held', () => {
    writeFileSync(path(), Buffer.alloc(2 * MIB, 7));
    symlinkSync(path(), inFolder('link'));
    createRawImage(inFolder('link'), MIB, 'off');
    expect(readFileSync(path()).equals(Buffer.alloc(MIB))).toBe(true);
    expect(statSync(path()).blocks).toBe(0);
  });
});

describe('an image is not made', () => {
  it('of one that is in use, which keeps what it holds', () => {
    writeFileSync(path(), Buffer.alloc(MIB, 7));
    for (const readOnly of [true, false]) {
      const image = openImage(path(), { format: 'raw', readOnly });
      expect(failure(() => createRawImage(path(), 512, 'off'))).toMatchObject({
        code: 'in-use',
        message: expect.stringMatching(/is in use by .*process/),
      });
      image.close();
    }
    expect(readFileSync(path()).equals(Buffer.alloc(MIB, 7))).toBe(true);
    createRawImage(path(), 512, 'off');
  });

  it('where there can be none', () => {
    const at = (name: string) => failure(() => createRawImage(inFolder(name), 512, 'off'));
    expect(at('nowhere/disk.raw')).toMatchObject({ code: 'system', message: expect.stringContaining('ENOENT') });
    expect(at('.')).toMatchObject({ code: 'system', message: expect.stringContaining('EISDIR') });
    execFileSync('mkfifo', [inFolder('pipe')]);
    expect(at('pipe')).toMatchObject({ code: 'not-an-image' });
    expect(failure(() => createRawImage('/dev/null', 512, 'off'))).toMatchObject({ code: 'not-an-image' });
    expect(existsSync(inFolder('pipe'))).toBe(true);
  });

  // With 'full' it would take until the disk is full.
  it.each(['off', 'falloc'] as const)('too large, and nothing is left (%s)', (preallocation) => {
    const most = 2 ** 53 - 512;
    expect(failure(() => createRawImage(path(), most, preallocation))).toMatchObject({
      code: 'system',
      message: expect.stringMatching(/(cannot make|cannot reserve) .*disk\.raw.*: .*\((EFBIG|ENOSPC|EINVAL)\)$/),
    });
    expect(existsSync(path())).toBe(false);
    expect(failure(() => createRawImage(path(), most + 1, preallocation)).code).toBe('not-an-image');
    expect(existsSync(path())).toBe(false);
    writeFileSync(path(), 'x');
    expect(failure(() => createRawImage(path(), most, preallocation)).code).toBe('system');
    expect(statSync(path()).size).toBe(0);
  });

  it('and no descriptor stays open', () => {
    writeFileSync(path(), 'x');
    failure(() => createRawImage(path(), 2 ** 53 - 512, 'off'));
    createRawImage(path(), 512, 'full');
    expect(openFdsOf(path())).toBe(0);
  });
});
