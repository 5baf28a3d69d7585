import { describe, expect, test } from 'vitest';
import { exportsAsJson, exportsAsText, type ReportedExport } from '#tsnbd/cli/export-report.js';
import { imagesAsJson, imagesAsText } from '#tsnbd/cli/image-report.js';
import { exportMapAsJson, imageMapAsJson, mapAsText, piecesOf } from '#tsnbd/cli/map-report.js';
import type { ImageDescription } from '#tsnbd/image/describe-image.js';

const address = { kind: 'tcp', host: 'h', port: 10809 } as const;
const described = (rest: object = {}, info: object = {}): ReportedExport => ({
  kind: 'described',
  description: {
    exportName: 'disk',
    info: { sizeBytes: 1_048_576, flags: 0x016d, ...info },
    fixedNewstyle: true,
    replyStyle: 'structured',
    contexts: ['base:allocation', 'x-y:z'],
    ...rest,
  },
});
const refused: ReportedExport = { kind: 'listed', name: 'b', description: 'two', error: 'over TLS only' };

describe('an export is described', () => {
  const blockSizes = { minimum: 1, preferred: 4096, maximumPayload: 33_554_432 };

  test('as nbdinfo does in words', () => {
    expect(exportsAsText(address, [described({}, { description: 'a disk', blockSizes }), refused])).toBe(
      `protocol: newstyle-fixed without TLS, using structured packets
export="disk":
	description: a disk
	export-size: 1048576 (1M)
	uri: nbd://h/disk
	contexts:
		base:allocation
		x-y:z
	is_rotational: false
	is_read_only: false
	can_block_status_payload: false
	can_cache: false
	can_df: false
	can_fast_zero: false
	can_flush: true
	can_fua: true
	can_multi_conn: true
	can_resize: false
	can_trim: true
	can_zero: true
	block_size_minimum: 1
	block_size_preferred: 4096
	block_size_maximum: 33554432
export="b":
	description: two
	error: over TLS only
`,
    );
  });

  test('as nbdinfo does in JSON', () => {
    expect(JSON.parse(exportsAsJson(address, [described({ contexts: [] }), refused]))).toEqual({
      protocol: 'newstyle-fixed',
      TLS: false,
      structured: true,
      extended: false,
      exports: [
        {
          'export-name': 'disk',
          'export-size': 1_048_576,
          'export-size-str': '1M',
          uri: 'nbd://h/disk',
          is_rotational: false,
          is_read_only: false,
          can_block_status_payload: false,
          can_cache: false,
          can_df: false,
          can_fast_zero: false,
          can_flush: true,
          can_fua: true,
          can_multi_conn: true,
          can_resize: false,
          can_trim: true,
          can_zero: true,
        },
        { 'export-name': 'b', description: 'two', error: 'over TLS only' },
      ],
    });
  });

  test.each([
    [{ replyStyle: 'simple', fixedNewstyle: false }, 'newstyle without TLS, using simple packets'],
    [{ replyStyle: 'extended' }, 'newstyle-fixed without TLS, using extended packets'],
  ])('with what was negotiated (%j)', (rest, words) => {
    expect(exportsAsText(address, [described(rest)])).toMatch(new RegExp(`^protocol: ${words}\n`));
  });

  test('each flag by its own name', () => {
    const names = Array.from({ length: 13 }, (_, bit) => {
      const text = exportsAsText(address, [described({}, { flags: 1 << bit })]);
      return [...text.matchAll(/\t(\w+): true/g)].map(([, name]) => name).join();
    });
    expect(names.join(' ')).toBe(
      ' is_read_only can_flush can_fua is_rotational can_trim can_zero can_df can_multi_conn can_resize can_cache can_fast_zero can_block_status_payload',
    );
  });

  test('without what a terminal should not be sent', () => {
    const hostile = described({ exportName: 'a\x1b[2J\nb', contexts: ['x:\x07'] }, { description: '\x9b31m' });
    expect(exportsAsText(address, [hostile])).toMatch(/^[\n\t\x20-\x7e]*$/);
    expect(exportsAsJson(address, [hostile])).toMatch(/^[\n\x20-\x7e\x9b]*$/);
  });

  test('a server that lists nothing is nothing in words', () => {
    expect(exportsAsText(address, [])).toBe('');
    expect(JSON.parse(exportsAsJson(address, []))).toEqual({ exports: [] });
  });
});

describe('an image is described', () => {
  const image: ImageDescription = {
    path: 'disk.raw',
    formatName: 'raw',
    backing: undefined,
    qcow2: undefined,
    virtualSizeBytes: 10_737_418_240,
    allocatedBytes: 4096,
    isDirty: false,
    notices: [],
  };

  test('as qemu-img does in words', () => {
    expect(imagesAsText([image])).toBe(
      'image: disk.raw\nfile format: raw\nvirtual size: 10 GiB (10737418240 bytes)\ndisk size: 4 KiB\n',
    );
  });

  test('as qemu-img does in JSON', () => {
    expect(JSON.parse(imagesAsJson([image], false))).toEqual({
      filename: 'disk.raw',
      format: 'raw',
      'virtual-size': 10_737_418_240,
      'actual-size': 4096,
      'dirty-flag': false,
    });
  });
});

describe('a map is shown', () => {
  const map = {
    formatName: 'raw',
    sizeBytes: 12_000_000_000,
    notices: [],
    pieces: [
      { offsetBytes: 0, lengthBytes: 512, hole: false, zero: false, depth: 1, hostBytes: 0 },
      { offsetBytes: 512, lengthBytes: 512, hole: true, zero: false, depth: 1, hostBytes: 512 },
      { offsetBytes: 1024, lengthBytes: 512, hole: false, zero: true, depth: 1, hostBytes: 1024 },
      { offsetBytes: 1536, lengthBytes: 11_999_998_464, hole: true, zero: true, depth: 1, hostBytes: 1536 },
    ],
  };

  test('as nbdinfo does', () => {
    expect(mapAsText(piecesOf(map))).toBe(
      '         0         512    0  data\n' +
        '       512         512    1  hole\n' +
        '      1024         512    2  zero\n' +
        '      1536  11999998464    3  hole,zero\n',
    );
    expect(JSON.parse(exportMapAsJson(piecesOf(map)))).toEqual([
      { offset: 0, length: 512, type: 0, description: 'data' },
      { offset: 512, length: 512, type: 1, description: 'hole' },
      { offset: 1024, length: 512, type: 2, description: 'zero' },
      { offset: 1536, length: 11_999_998_464, type: 3, description: 'hole,zero' },
    ]);
    expect([mapAsText([]), exportMapAsJson([])]).toEqual(['', '[]\n']);
  });

  test('as qemu-img does, of an image', () => {
    expect(JSON.parse(imageMapAsJson(map))).toMatchObject([
      { start: 0, length: 512, depth: 0, present: true, zero: false, data: true, offset: 0 },
      { start: 512, zero: false, data: true },
      { start: 1024, zero: true, data: false },
      { start: 1536, length: 11_999_998_464, zero: true, data: false, offset: 1536 },
    ]);
    const pieces = [2, 1, 0].map((depth, index) => ({
      lengthBytes: 512,
      offsetBytes: 512 * index,
      hole: false,
      zero: false,
      depth,
      hostBytes: index === 1 ? 4096 : -1,
    }));
    expect(JSON.parse(imageMapAsJson({ ...map, formatName: 'qcow2', pieces }))).toEqual([
      { start: 0, length: 512, depth: 1, present: true, zero: false, data: true },
      { start: 512, length: 512, depth: 0, present: true, zero: false, data: true, offset: 4096 },
      { start: 1024, length: 512, depth: 0, present: false, zero: false, data: true },
    ]);
    expect(piecesOf({ ...map, pieces })).toEqual([{ offsetBytes: 0, lengthBytes: 1536, status: 0 }]);
  });
});
