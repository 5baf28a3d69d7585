import { closeSync, ftruncateSync, openSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { describeImage } from '#tsnbd/image/describe-image.js';
import { mapImage } from '#tsnbd/image/map-image.js';
import { openImage } from '#tsnbd/image/open-image.js';
import { openFdsOf } from '../open-fds.js';
import { useTemporaryFolder } from './temporary-folder.js';

const MIB = 1_048_576;
const inFolder = useTemporaryFolder();
const path = () => inFolder('disk.raw');

/** Data at the beginning and in the middle, holes around it. */
function makeImage(sizeBytes = MIB): void {
  const fd = openSync(path(), 'w');
  ftruncateSync(fd, sizeBytes);
  for (const at of [0, 65_536, 69_632]) writeSync(fd, Buffer.alloc(4096, 7), 0, 4096, at);
  closeSync(fd);
}

describe('a raw image is described', () => {
  it('by its size and its storage', () => {
    makeImage();
    expect(describeImage(path(), {})).toEqual({
      path: path(),
      formatName: 'raw',
      virtualSizeBytes: MIB,
      allocatedBytes: statSync(path()).blocks * 512,
      isDirty: false,
      backing: undefined,
      qcow2: undefined,
      notices: [],
    });
    expect(openFdsOf(path())).toBe(0);
  });

  it('in whole sectors, and the user is told', () => {
    makeImage(MIB + 1);
    expect(describeImage(path(), {})).toMatchObject({
      virtualSizeBytes: MIB + 512,
      notices: [expect.stringContaining('no multiple of 512')],
    });
  });

  it('only if it is one, or is said to be', () => {
    writeFileSync(path(), 'QFI\xfb'.padEnd(1024, '\0'), 'latin1');
    expect(() => describeImage(path(), {})).toThrow('is a qcow2 image that cannot be opened');
    expect(describeImage(path(), { format: 'raw' }).virtualSizeBytes).toBe(1024);
    expect(() => describeImage(inFolder('none'), {})).toThrow('does not exist');
  });
});

describe('a raw image is mapped', () => {
  it('from its first to its last byte, neighbours of a kind as one', () => {
    makeImage();
    const { pieces, ...rest } = mapImage(path(), {});
    expect(rest).toEqual({ formatName: 'raw', sizeBytes: MIB, notices: [] });
    expect(pieces.map(({ offsetBytes, lengthBytes }) => [offsetBytes, lengthBytes])).toEqual([
      [0, 4096],
      [4096, 61_440],
      [65_536, 8192],
      [73_728, MIB - 73_728],
    ]);
    expect(pieces.map(({ hole, zero }) => [hole, zero])).toEqual([
      [false, false],
      [true, true],
      [false, false],
      [true, true],
    ]);
    expect(openFdsOf(path())).toBe(0);
  });

  it('with what is missing of its last sector', () => {
    writeFileSync(path(), Buffer.alloc(1_000, 7));
    const { pieces, sizeBytes } = mapImage(path(), {});
    expect(sizeBytes).toBe(1_024);
    expect(pieces.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)).toBe(1_024);
    expect(pieces[0]).toMatchObject({ offsetBytes: 0, hole: false, zero: false });
  });
});

it('an image in use is looked at if its user lets others, and else by force', () => {
  makeImage(MIB + 1); // it may grow, and so is resized by nobody else
  const image = openImage(path(), { format: 'raw', readOnly: false });
  try {
    expect(() => describeImage(path(), {})).toThrow(/is in use by .*, which may resize it/);
    expect(() => mapImage(path(), {})).toThrow(/is in use by .*, which may resize it/);
    expect(describeImage(path(), { forceShare: true }).virtualSizeBytes).toBe(MIB + 512);
    expect(mapImage(path(), { forceShare: true }).pieces.length).toBe(4);
    expect(() => openImage(path(), { format: 'raw', readOnly: false, forceShare: true })).toThrow('is in use');
  } finally {
    image.close();
  }
});
