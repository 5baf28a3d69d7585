import { describe, expect, it } from 'vitest';
import { foreignFormat, MAGIC_BYTES } from '#tsnbd/image/format-magic.js';

const disk = () => new Uint8Array(MAGIC_BYTES);

function withText(text: string, at: number): Uint8Array {
  const part = disk();
  part.set(Buffer.from(text, 'latin1'), at);
  return part;
}

const heads: readonly [string, string, number][] = [
  ['qcow', 'QFI\xfb\0\0\0\x01', 0],
  ['qcow2', 'QFI\xfb\0\0\0\x02', 0],
  ['qcow2', 'QFI\xfb\0\0\0\x03', 0],
  ['qed', 'QED\0', 0],
  ['vmdk', 'KDMV', 0],
  ['vmdk', 'COWD', 0],
  ['vmdk', '# Disk DescriptorFile\nversion=1', 0],
  ['vdi', '\x7f\x10\xda\xbe', 64],
  ['vhdx', 'vhdxfile', 0],
  ['vhd', 'conectix', 0],
  ['parallels', 'WithoutFreeSpace', 0],
  ['parallels', 'WithouFreSpacExt', 0],
  ['luks', 'LUKS\xba\xbe', 0],
  ['bochs', 'Bochs Virtual HD Image', 0],
  ['cloop', '#!/bin/sh\n#V2.0 Format\nmodprobe cloop', 0],
];

describe('the first bytes of an image', () => {
  it.each(heads)('of format %s are known by %j', (format, text, at) => {
    expect(foreignFormat(withText(text, at), disk())).toBe(format);
  });

  it.each(heads)('are not taken for %s if one bit of %j differs, or they come one byte later', (_, text, at) => {
    // Of qcow2 the version does not count.
    const magicLength = text.startsWith('QFI') ? 4 : text.length;
    const flipped = withText(text.slice(0, magicLength), at);
    flipped[at] = (flipped[at] ?? 0) ^ 1;
    expect(foreignFormat(flipped, disk())).toBeUndefined();
    expect(foreignFormat(withText(text, at + 1), disk())).toBeUndefined();
  });

  it('are a disk if they are zeroes, a boot sector or a partition table', () => {
    expect(foreignFormat(disk(), disk())).toBeUndefined();
    expect(foreignFormat(withText('\x55\xaa', 510), disk())).toBeUndefined();
  });

  it('may be fewer than any magic has', () => {
    for (const [, text] of heads) {
      expect(foreignFormat(Buffer.from(text.slice(0, 3), 'latin1'), new Uint8Array(0))).toBeUndefined();
    }
  });
});

describe('the last sector of an image', () => {
  it.each([
    ['vhd', 'conectix'],
    ['dmg', 'koly'],
  ])('tells of %s by %j', (format, text) => {
    expect(foreignFormat(disk(), withText(text, 0))).toBe(format);
    expect(foreignFormat(disk(), withText(text, 1))).toBeUndefined();
    expect(foreignFormat(disk(), new Uint8Array(0))).toBeUndefined();
  });
});
