import { mkdtempSync, readFileSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { allocatedBytes, METADATA_BYTES, makeFullDisk, makeHoleyDisk, type Piece } from './holey-disk.js';
import { run, type Served, serveTcp, serveUnix, sha256, succeed } from './served.js';

const [KIB, MIB] = [1_024, 1_048_576];
let folder: string;
let image: string;
let pieces: readonly Piece[];
let server: Served | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-qemu-'));
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

describe.each(['unix', 'tcp'] as const)('qemu-img over %s', (transport) => {
  test('maps data and holes', async () => {
    const uri = await serve(transport);
    expect(JSON.parse(await succeed('qemu-img', 'map', '--output=json', uri))).toMatchObject(
      pieces.map(({ offsetBytes, lengthBytes, isData }) => ({
        start: offsetBytes,
        length: lengthBytes,
        depth: 0,
        present: true,
        zero: !isData,
        data: isData,
        offset: offsetBytes,
      })),
    );
  });

  test('compares an image with a copy of it, and sees where one byte differs', async () => {
    const uri = await serve(transport);
    const copy = join(folder, 'copy.raw');
    await succeed('nbdcopy', uri, copy);
    const compare = () => run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', uri, copy);
    expect(await compare()).toMatchObject({ status: 0, stdout: 'Images are identical.\n' });
    await qemuIo(uri, [`write -P 1 ${12 * MIB} 512`]);
    const { status, stdout } = await compare();
    expect({ status, stdout }).toEqual({ status: 1, stdout: `Content mismatch at offset ${12 * MIB}!\n` });
  });

  test('converts from and to the server, holes kept', async () => {
    const uri = await serve(transport);
    const copy = join(folder, 'copy.raw');
    await succeed('qemu-img', 'convert', '-m', '16', '-W', '-f', 'raw', '-O', 'raw', uri, copy);
    expect(sha256(copy)).toBe(sha256(image));
    expect(allocatedBytes(copy)).toBeLessThanOrEqual(allocatedBytes(image) + METADATA_BYTES);

    const packed = join(folder, 'packed.qcow2');
    await succeed('qemu-img', 'convert', '-c', '-f', 'raw', '-O', 'qcow2', uri, packed);
    await server?.stop();
    makeFullDisk(image);
    const again = await serve(transport);
    await succeed('qemu-img', 'convert', '-n', '-f', 'qcow2', '-O', 'raw', packed, again);
    expect(sha256(image)).toBe(sha256(copy));
    expect(allocatedBytes(image)).toBeLessThanOrEqual(allocatedBytes(copy) + METADATA_BYTES);
  });
});

/** QEMU has known extended headers since 8.2: docs/about/deprecated and its changelog; `--long` brings a newer one. */
test('has the richest replies that it knows, and requests of more than 4 GiB with extended headers', async () => {
  const [, major = '', minor = ''] = /version (\d+)\.(\d+)/.exec(await succeed('qemu-img', '--version')) ?? [];
  const knowsExtended = Number(major) + Number(minor) / 10 >= 8.2;
  if (process.env.TSNBD_NEWER_QEMU === '1') expect(knowsExtended).toBe(true);
  truncateSync(image, 6 * 1024 * MIB);
  const uri = await serve('unix', '-v');
  // With -n, zeroes that are to be quick, qemu-io lets more than 2 GiB through as one request.
  await qemuIo(uri, ['write -P 3 4200M 1M', 'write -z -n -u 1M 4608M', 'read -P 0 4200M 1M', 'discard 0 1M']);
  const style = knowsExtended ? '(extended headers)' : '(structured replies)';
  await expect.poll(() => server?.said()).toContain(style);
  expect(allocatedBytes(image)).toBeLessThanOrEqual(METADATA_BYTES);
});

describe('qemu-io', () => {
  test('sees what it wrote, zeroed and discarded', async () => {
    const uri = await serve('unix');
    await qemuIo(uri, [
      'write -P 5 4M 1M',
      'write -f -P 6 5M 64k',
      'write -z 4M 64k',
      'write -zu 4160k 64k',
      'write -z -n 4224k 64k',
      'write -zu -f 4288k 64k',
      'discard 4352k 64k',
      'write -P 7 4097k 3k',
      'read -P 0 4M 1k',
      'read -P 7 4097k 3k',
      'read -P 0 4100k 316k',
      'read -P 5 4416k 704k',
      'read -P 6 5M 64k',
      'writev -P 8 6M 512 1024 4096 65536',
      'readv -P 8 6M 65536 4096 1024 512',
      'flush',
    ]);
    const content = readFileSync(image);
    const places = [4_096, 4_097, 4_352, 4_416, 5_120, 6_144].map((at) => content[at * KIB]);
    expect(places).toEqual([0, 7, 0, 5, 6, 8]);
  });

  test('has many requests on their way at once', async () => {
    const uri = await serve('tcp');
    const lengthBytes = 150 * KIB;
    const places = Array.from({ length: 16 }, (_, index) => ({
      at: 8 * MIB + index * lengthBytes,
      pattern: index + 1,
    }));
    await qemuIo(uri, [
      ...places.map(({ at, pattern }) => `aio_write -P ${pattern} ${at} ${lengthBytes}`),
      'aio_flush',
      ...places.map(({ at, pattern }) => `aio_read -P ${pattern} ${at} ${lengthBytes}`),
      `aio_write -z ${14 * MIB} 64k`,
      `aio_write -zu ${15 * MIB} 64k`,
      'aio_flush',
    ]);
    const content = readFileSync(image);
    for (const { at, pattern } of places) {
      expect(content.subarray(at, at + lengthBytes).equals(Buffer.alloc(lengthBytes, pattern))).toBe(true);
    }
  });

  test('gives storage back by discards and by zeroes that may, if discards are on', async () => {
    makeFullDisk(image);
    const uri = await serve('unix');
    const expectFreed = async (bytes: number, command: string) => {
      const before = allocatedBytes(image);
      await qemuIo(uri, [command]);
      expect(Math.abs(before - allocatedBytes(image) - bytes)).toBeLessThanOrEqual(METADATA_BYTES);
    };
    await expectFreed(MIB, 'discard 0 1M');
    await expectFreed(MIB, `write -zu ${2 * MIB} 1M`);
    await expectFreed(0, `write -z ${4 * MIB} 1M`);
    await qemuIo(uri, ['read -P 0 0 1M', `read -P 0 ${2 * MIB} 1M`, `read -P 0 ${4 * MIB} 1M`]);
  });

  test('gives none back with --discard=ignore, and reads zeroes all the same', async () => {
    makeFullDisk(image);
    const uri = await serve('unix', '--discard=ignore');
    const before = allocatedBytes(image);
    await qemuIo(uri, ['discard 0 1M', `write -zu ${2 * MIB} 1M`, `read -P 0 ${2 * MIB} 1M`]);
    expect(Math.abs(allocatedBytes(image) - before)).toBeLessThanOrEqual(METADATA_BYTES);
  });

  test('is refused what a read-only export does not let it do', async () => {
    const uri = await serve('unix', '-r');
    const before = sha256(image);
    const { stdout, stderr } = await run('qemu-io', '-f', 'raw', '-c', 'write 0 512', uri);
    expect(stdout + stderr).toMatch(/read-only|not permitted|permission denied/i);
    expect(await qemuIo(uri, ['read 0 512', 'map'], '-r')).toContain(`allocated at offset 0 bytes`);
    expect(sha256(image)).toBe(before);
  });
});

/** Runs commands in qemu-io, which writes through to the disk and lets discards through; fails where one did. */
async function qemuIo(uri: string, commands: readonly string[], ...options: string[]): Promise<string> {
  const args = commands.flatMap((command) => ['-c', command]);
  const { status, stdout, stderr } = await run('qemu-io', '-f', 'raw', '-d', 'unmap', ...options, ...args, uri);
  const said = stdout + stderr;
  if (status !== 0 || /fail|error|invalid/i.test(said)) throw new Error(`qemu-io ended with ${status}: ${said}`);
  return said;
}
