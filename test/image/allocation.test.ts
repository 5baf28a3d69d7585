import { closeSync, ftruncateSync, openSync, truncateSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { allocationStatus } from '#tsnbd/image/allocation.js';
import { type FileCalls, fileCalls } from '#tsnbd/image/file-calls.js';
import { emptyExtent } from '#tsnbd/image/image.js';
import { NEXT_DATA, NEXT_HOLE } from '#tsnbd/kernel/fd-calls.js';
import { useTemporaryFolder } from './temporary-folder.js';

const { EBADF, EINVAL, EIO, ENXIO, EOPNOTSUPP } = constants.errno;
const MiB = 1 << 20;
const inFolder = useTemporaryFolder();
let fd: number;
beforeEach(() => {
  fd = openSync(inFolder('disk'), 'w+');
});
afterEach(() => closeSync(fd));

/** All extents of a range, as 'data 4096' or 'hole 4096'. */
function extents(fileBytes: number, offset: number, length: number, calls = fileCalls): string[] {
  const list: string[] = [];
  const extent = emptyExtent();
  for (let done = 0; done < length; done += extent.lengthBytes) {
    expect(allocationStatus(calls, fd, fileBytes, offset + done, length - done, extent)).toBe(0);
    expect(extent.zero).toBe(extent.hole);
    list.push(`${extent.hole ? 'hole' : 'data'} ${extent.lengthBytes}`);
  }
  return list;
}

function withData(fileBytes: number, ...offsets: number[]): void {
  ftruncateSync(fd, fileBytes);
  for (const offset of offsets) writeSync(fd, Buffer.alloc(MiB, 1), 0, MiB, offset);
}

describe('the status of a file', () => {
  it('is data and holes, cut to what was asked for', () => {
    withData(8 * MiB, 2 * MiB, 5 * MiB);
    expect(extents(8 * MiB, 0, 8 * MiB)).toEqual([
      `hole ${2 * MiB}`,
      `data ${MiB}`,
      `hole ${2 * MiB}`,
      `data ${MiB}`,
      `hole ${2 * MiB}`,
    ]);
    expect(extents(8 * MiB, MiB, MiB + 4096)).toEqual([`hole ${MiB}`, 'data 4096']);
    expect(extents(8 * MiB, 3 * MiB - 4096, 8192)).toEqual(['data 4096', 'hole 4096']);
    expect(extents(8 * MiB, 2 * MiB + 1, 7)).toEqual(['data 7']);
    expect(extents(8 * MiB, 7, 1)).toEqual(['hole 1']);
  });

  it('is a hole behind its end, where the sector is not whole', () => {
    writeSync(fd, Buffer.alloc(700, 1));
    expect(extents(700, 0, 1024)).toEqual(['data 700', 'hole 324']);
    expect(extents(700, 512, 512)).toEqual(['data 188', 'hole 324']);
    expect(extents(700, 700, 324)).toEqual(['hole 324']);
    expect(extents(700, 1023, 1)).toEqual(['hole 1']);
  });

  it('is one hole up to and behind its end', () => {
    withData(4 * MiB + 700, 0);
    expect(extents(4 * MiB + 700, 2 * MiB, 2 * MiB + 1024)).toEqual([`hole ${2 * MiB + 1024}`]);
  });

  it('tells offsets beyond 4 GiB', () => {
    withData(2 ** 43, 2 ** 42);
    expect(extents(2 ** 43, 0, 2 ** 43)).toEqual([`hole ${2 ** 42}`, `data ${MiB}`, `hole ${2 ** 42 - MiB}`]);
  });

  it('is data, not zeroes, where somebody cut it off', () => {
    withData(2 * MiB, 0);
    truncateSync(inFolder('disk'), MiB);
    expect(extents(2 * MiB, 0, 2 * MiB)).toEqual([`data ${MiB}`, `data ${MiB}`]);
    truncateSync(inFolder('disk'), 0);
    expect(extents(2 * MiB, 0, MiB)).toEqual([`data ${MiB}`]);
  });
});

describe('where holes are not known', () => {
  const answers = (result: (what: number) => number): FileCalls => ({
    ...fileCalls,
    seek: (_fd, _at, what) => result(what),
  });

  it.each([EINVAL, EOPNOTSUPP])('(errno %i) all is data', (errno) => {
    expect(
      extents(
        MiB,
        512,
        4096,
        answers(() => -errno),
      ),
    ).toEqual(['data 4096']);
  });

  it('a hole that came in between, or an error behind data, is data', () => {
    for (const result of [512, 0, -EIO, -ENXIO]) {
      const calls = answers((what) => (what === NEXT_HOLE ? result : 512));
      expect(extents(MiB, 512, 4096, calls)).toEqual(['data 4096']);
    }
  });

  it('a disk error is one', () => {
    const extent = emptyExtent();
    const calls = answers((what) => (what === NEXT_DATA ? -EIO : 0));
    expect(allocationStatus(calls, fd, MiB, 0, 512, extent)).toBe(EIO);
    expect(allocationStatus(fileCalls, 99_999, MiB, 0, 512, extent)).toBe(EBADF);
  });
});
