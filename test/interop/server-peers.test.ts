import { randomFillSync } from 'node:crypto';
import { closeSync, existsSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { inLongRun } from '../long.js';
import { run, type Served, serveTcp, serveUnix, sha256, succeed } from './served.js';
import { peerVersions } from './versions.js';

/** More than the longest request, and no more: who copies it pays for every page of it. */
const SIZE_BYTES = 37_748_736;
let folder: string;
let image: string;
let server: Served | undefined;

beforeAll(() => {
  console.log(`peers:\n  ${peerVersions().join('\n  ')}`);
});
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-peers-'));
  image = join(folder, 'disk.raw');
  makeDisk(image);
});
afterEach(async () => {
  await server?.stop();
  server = undefined;
  rmSync(folder, { recursive: true });
});

/** A disk of random data with holes in between. */
function makeDisk(path: string): void {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, SIZE_BYTES);
  const piece = Buffer.alloc(1_048_576);
  for (let at = 0; at < SIZE_BYTES; at += 3 * piece.length) writeSync(fd, randomFillSync(piece), 0, piece.length, at);
  closeSync(fd);
}

const transports = {
  tcp: (...options: string[]) => serveTcp(image, ...options),
  unix: (...options: string[]) => serveUnix(join(folder, 'socket'), image, ...options),
};

describe.each(['tcp', 'unix'] as const)('our server over %s', (transport) => {
  const serve = async (...options: string[]) => {
    server = await transports[transport]('-t', '-e', '0', ...options);
    return server.uri;
  };

  test('is understood by nbdinfo', async () => {
    const uri = await serve();
    expect(await succeed('nbdinfo', '--size', uri)).toBe(`${SIZE_BYTES}\n`);
    const { protocol, exports } = JSON.parse(await succeed('nbdinfo', '--json', uri));
    expect(protocol).toBe('newstyle-fixed');
    expect(exports).toMatchObject([
      {
        'export-name': '',
        is_read_only: false,
        can_flush: true,
        can_fua: true,
        can_multi_conn: true,
        can_trim: true,
        can_zero: true,
        block_size_minimum: 1,
        block_size_preferred: 4_096,
        block_size_maximum: 33_554_432,
        'export-size': SIZE_BYTES,
      },
    ]);
    const listed = JSON.parse(await succeed('nbdinfo', '--list', '--json', uri));
    expect(listed.exports).toMatchObject([{ 'export-name': '', 'export-size': SIZE_BYTES }]);
  });

  test('is copied from and to by nbdcopy', async () => {
    const uri = await serve();
    const copy = join(folder, 'copy.raw');
    await succeed('nbdcopy', uri, copy);
    expect(sha256(copy)).toBe(sha256(image));

    makeDisk(copy);
    await succeed('nbdcopy', '--flush', copy, uri);
    expect(sha256(image)).toBe(sha256(copy));
    expect(await server?.stop()).toBe(0);
    expect(server?.said()).toBe('');
  });

  test('is copied from and to by nbdcopy with requests of 32 MiB', async () => {
    const uri = await serve();
    const copy = join(folder, 'copy.raw');
    makeDisk(copy);
    await succeed('nbdcopy', '--request-size=33554432', '--flush', copy, uri);
    expect(sha256(image)).toBe(sha256(copy));
    const back = join(folder, 'back.raw');
    await succeed('nbdcopy', '--request-size=33554432', uri, back);
    expect(sha256(back)).toBe(sha256(copy));
  });

  test('is read and written by qemu-img', async () => {
    const uri = await serve();
    const information = JSON.parse(await succeed('qemu-img', 'info', '--output=json', uri));
    expect(information).toMatchObject({ 'virtual-size': SIZE_BYTES, format: 'raw' });
    const copy = join(folder, 'copy.qcow2');
    await succeed('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', uri, copy);
    expect(await succeed('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', image, copy, '-U')).toContain('identical');

    const other = join(folder, 'other.raw');
    makeDisk(other);
    await succeed('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', other, uri);
    expect(sha256(image)).toBe(sha256(other));
  });

  test.each([
    { bs: '4k-4k', depth: 32, jobs: 4 },
    { bs: '512-128k', depth: 16, jobs: 2 },
    ...inLongRun([
      { bs: '4k-4k', depth: 1, jobs: 1 },
      { bs: '2m-2m', depth: 4, jobs: 1 },
    ]),
  ])('keeps what fio writes: blocks of $bs, depth $depth, $jobs jobs', async ({ bs, depth, jobs }) => {
    const uri = await serve();
    const sizeBytes = Math.min(SIZE_BYTES / jobs, 16_777_216);
    const shape = [`--bsrange=${bs}`, `--iodepth=${depth}`, `--numjobs=${jobs}`, `--size=${sizeBytes}`];
    const report = await succeed(
      'fio',
      '--name=verify',
      '--ioengine=nbd',
      `--uri=${uri}`,
      '--rw=randrw',
      ...shape,
      `--offset_increment=${sizeBytes}`,
      '--verify=crc32c',
      '--verify_fatal=1',
      '--verify_state_save=0',
      '--fsync=64',
      '--randseed=4711',
      '--output-format=json',
    );
    const results = JSON.parse(report.slice(report.indexOf('{'))).jobs;
    expect(results).toHaveLength(jobs);
    for (const result of results) {
      expect(result.error).toBe(0);
      expect(result.write.io_bytes).toBeGreaterThan(sizeBytes / 8);
      expect(result.read.io_bytes).toBeGreaterThan(result.write.io_bytes);
    }
  });

  test('with -r shows itself read-only and keeps the image as it is', async () => {
    const uri = await serve('-r');
    const before = sha256(image);
    await succeed('nbdinfo', '--is', 'read-only', uri);
    const other = join(folder, 'other.raw');
    makeDisk(other);
    expect((await run('nbdcopy', other, uri)).status).not.toBe(0);
    expect(sha256(image)).toBe(before);
  });

  test('ends on SIGTERM with status 0', async () => {
    await serve();
    expect(await server?.stop()).toBe(0);
    expect(server?.said()).toBe('');
    expect(existsSync(join(folder, 'socket'))).toBe(false);
  });
});

describe('our server with its defaults', () => {
  test('serves nbdcopy, which would use more connections than one, and ends when it leaves', async () => {
    server = await serveTcp(image);
    const copy = join(folder, 'copy.raw');
    await succeed('nbdcopy', server.uri, copy);
    expect(sha256(copy)).toBe(sha256(image));
    expect(await server.exit).toBe(0);
  });

  test('lists its export to nbdinfo, which connects once more for it', async () => {
    server = await serveTcp(image);
    const listed = JSON.parse(await succeed('nbdinfo', '--list', '--json', server.uri));
    expect(listed.exports).toMatchObject([{ 'export-name': '', 'export-size': SIZE_BYTES }]);
  });

  test('refuses an export that it does not have with words that reach the user', async () => {
    server = await serveTcp(image, '-t');
    const { status, stderr } = await run('qemu-img', 'info', `${server.uri}other`);
    expect(status).not.toBe(0);
    expect(stderr).toContain('server reported: there is no such export');
  });
});
