import { describe, expect, test } from 'vitest';
import { mapAsSvg } from '#tsnbd/cli/map-svg.js';

const GIB = 2 ** 30;
/** The parts of the picture that show the disk, in their order. */
const shown = (svg: string) =>
  [...svg.matchAll(/<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"[^>]*><title>([^<]*)</g)].map(
    ([, x, y, width, height, title]) => ({ box: [x, y, width, height].map(Number), title }),
  );

describe('the picture of a map', () => {
  test('shows each piece where it lies', () => {
    const svg = mapAsSvg('disk.raw', GIB, [
      { offsetBytes: 0, lengthBytes: GIB / 2, status: 0 },
      { offsetBytes: GIB / 2, lengthBytes: GIB / 2, status: 3 },
    ]);
    const parts = shown(svg);
    expect(parts).toHaveLength(32);
    expect(parts[0]).toEqual({ box: [90, 64, 1024, 8], title: 'from 0: data, 100 %' });
    expect(parts[16]).toEqual({ box: [90, 192, 1024, 8], title: `from ${GIB / 2}: hole,zero, 100 %` });
    expect(svg).toContain('>disk.raw, 1 GiB<');
    expect(svg).toContain('>data: 512 MiB<');
    expect(svg).toContain('>hole,zero: 512 MiB<');
    expect(svg).not.toContain('>zero: ');
  });

  test('divides a cell by what it holds', () => {
    const cell = GIB / 4096;
    const parts = shown(
      mapAsSvg('x', GIB, [
        { offsetBytes: 0, lengthBytes: cell / 4, status: 0 },
        { offsetBytes: cell / 4, lengthBytes: GIB - cell / 4, status: 2 },
      ]),
    );
    expect(parts.slice(0, 3)).toEqual([
      { box: [90, 70, 8, 2], title: 'from 0: data, 25 %' },
      { box: [90, 64, 8, 6], title: 'from 0: zero, 75 %' },
      { box: [98, 64, 1016, 8], title: `from ${cell}: zero, 100 %` },
    ]);
  });

  test('is no larger for a million pieces, and smaller for a small disk', () => {
    const pieces = Array.from({ length: 1_000_000 }, (_, index) => ({
      offsetBytes: index * 4096,
      lengthBytes: 4096,
      status: index % 2,
    }));
    const svg = mapAsSvg('x', 4_096_000_000, pieces);
    expect(svg.length).toBeLessThan(1_000_000);
    expect(shown(svg).length).toBeLessThanOrEqual(4 * 4096);
    const small = mapAsSvg('x', 1024, [{ offsetBytes: 0, lengthBytes: 1024, status: 0 }]);
    expect(shown(small)).toEqual([{ box: [90, 64, 16, 8], title: 'from 0: data, 100 %' }]);
    expect(shown(mapAsSvg('x', 0, []))).toEqual([]);
  });

  test('is XML whatever the name is', () => {
    const svg = mapAsSvg('<a> & \0\x1b"b" größe \ud800', 512, []);
    expect(svg).toContain('>&lt;a&gt; &amp; "b" größe , 512 B<');
    expect(svg.match(/<svg /g)).toHaveLength(1);
    expect(svg.startsWith('<svg xmlns="http://www.w3.org/2000/svg" ') && svg.endsWith('</svg>\n')).toBe(true);
    expect(svg.includes('\0') || svg.includes('\x1b')).toBe(false);
  });
});
