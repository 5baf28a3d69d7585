import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { allocatedBytes, DISK_BYTES, METADATA_BYTES, makeFullDisk, makeHoleyDisk, type Piece } from './holey-disk.js';
import { run, type Served, serveTcp, serveUnix, sha256, succeed } from './served.js';

let folder: string;
let image: string;
let pieces: readonly Piece[];
let server: Served | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-libnbd-'));
  image = join(folder, 'disk.raw');
  pieces = makeHoleyDisk(image);
});
afterEach(async () => {
  await server?.stop();
  server = undefined;
  rmSync(folder, { recursive: true });
});

const serve = async (transport: 'tcp' | 'unix', ...options: string[]) => {
  const all = ['-t', '-e', '0', ...options];
  server = await (transport === 'tcp' ? serveTcp(image, ...all) : serveUnix(join(folder, 'socket'), image, ...all));
  return server.uri;
};

describe('nbdinfo', () => {
  const dataBytes = () => pieces.reduce((sum, { isData, lengthBytes }) => sum + (isData ? lengthBytes : 0), 0);

  test('maps data and holes, and adds them up', async () => {
    const uri = await serve('unix');
    const rows = pieces.map(({ offsetBytes, lengthBytes, isData }) =>
      isData
        ? { offset: offsetBytes, length: lengthBytes, type: 0, description: 'data' }
        : { offset: offsetBytes, length: lengthBytes, type: 3, description: 'hole,zero' },
    );
    expect(JSON.parse(await succeed('nbdinfo', '--map', '--json', uri))).toEqual(rows);
    const lines = (await succeed('nbdinfo', '--map', uri)).trim().split('\n');
    expect(lines.map((line) => line.trim().split(/ +/))).toEqual(
      rows.map((row) => [row.offset, row.length, row.type, row.description].map(String)),
    );
    expect(JSON.parse(await succeed('nbdinfo', '--map', '--totals', '--json', uri))).toMatchObject([
      { size: dataBytes(), type: 0 },
      { size: DISK_BYTES - dataBytes(), type: 3 },
    ]);
  });

  test('maps an image that has no holes as one piece', async () => {
    makeFullDisk(image);
    const uri = await serve('tcp');
    expect(JSON.parse(await succeed('nbdinfo', '--map', '--json', uri))).toEqual([
      { offset: 0, length: DISK_BYTES, type: 0, description: 'data' },
    ]);
  });

  test('describes the export in words, in JSON and in a list', async () => {
    const uri = await serve('tcp');
    const described = {
      'export-name': '',
      'export-size': DISK_BYTES,
      contexts: ['base:allocation'],
      can_cache: true,
      can_df: true,
      can_fast_zero: true,
      can_trim: true,
      is_read_only: false,
    };
    const one = JSON.parse(await succeed('nbdinfo', '--json', uri));
    expect(one).toMatchObject({ protocol: 'newstyle-fixed', structured: true, TLS: false, exports: [described] });
    expect(JSON.parse(await succeed('nbdinfo', '--list', '--json', uri)).exports).toMatchObject([described]);
    for (const text of [await succeed('nbdinfo', uri), await succeed('nbdinfo', '--list', uri)]) {
      expect(text).toContain('protocol: newstyle-fixed without TLS, using structured packets');
      expect(text).toContain(`export-size: ${DISK_BYTES} (16M)`);
      expect(text).toContain('base:allocation');
    }
  });

  test('is told each property, and of a read-only export what it lacks', async () => {
    const always = ['read', 'connect', 'structured-reply', 'cache', 'df', 'flush', 'fua', 'multi-conn'];
    const writing = ['write', 'trim', 'zero', 'fast-zero'];
    const answered = async (uri: string, kind: '--can' | '--is', properties: readonly string[]) => {
      const ran = await Promise.all(properties.map((property) => run('nbdinfo', kind, property, uri)));
      return properties.filter((_, index) => ran[index]?.status === 0);
    };
    const uri = await serve('unix');
    expect(await answered(uri, '--can', [...always, ...writing])).toEqual([...always, ...writing]);
    expect(await answered(uri, '--is', ['read-only', 'tls'])).toEqual([]);
    await server?.stop();

    const readOnly = await serve('unix', '-r');
    expect(await answered(readOnly, '--can', [...always, ...writing])).toEqual(always);
    expect(await answered(readOnly, '--is', ['read-only', 'tls'])).toEqual(['read-only']);
  });
});

describe.each(['unix', 'tcp'] as const)('nbdcopy over 4 connections, by %s', (transport) => {
  const four = ['--connections=4', '--requests=16'];

  test('copies an image with its holes', async () => {
    const uri = await serve(transport);
    const copy = join(folder, 'copy.raw');
    await succeed('nbdcopy', ...four, uri, copy);
    expect(sha256(copy)).toBe(sha256(image));
    expect(allocatedBytes(copy)).toBeLessThanOrEqual(allocatedBytes(image) + METADATA_BYTES);
  });

  test('makes holes in an image that was full', async () => {
    const source = join(folder, 'source.raw');
    makeHoleyDisk(source);
    makeFullDisk(image);
    const uri = await serve(transport);
    await succeed('nbdcopy', ...four, '--flush', source, uri);
    expect(sha256(image)).toBe(sha256(source));
    expect(allocatedBytes(image)).toBeLessThanOrEqual(allocatedBytes(source) + METADATA_BYTES);
  });

  test('leaves storage allocated when it is told to', async () => {
    const source = join(folder, 'source.raw');
    makeHoleyDisk(source);
    makeFullDisk(image);
    const uri = await serve(transport);
    await succeed('nbdcopy', ...four, '--allocated', '--flush', source, uri);
    expect(sha256(image)).toBe(sha256(source));
    expect(allocatedBytes(image)).toBeGreaterThanOrEqual(DISK_BYTES);
  });

  test('copies from one of our exports to another', async () => {
    const target = join(folder, 'target.raw');
    makeFullDisk(target);
    const uri = await serve(transport);
    const other = await serveUnix(join(folder, 'other'), target, '-t', '-e', '0');
    try {
      await succeed('nbdcopy', ...four, '--flush', uri, other.uri);
    } finally {
      await other.stop();
    }
    expect(sha256(target)).toBe(sha256(image));
    expect(allocatedBytes(target)).toBeLessThanOrEqual(allocatedBytes(image) + METADATA_BYTES);
  });
});
