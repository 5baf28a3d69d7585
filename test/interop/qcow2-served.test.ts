import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ImageError } from '#tsnbd/image/errors.js';
import { type OpenedImage, type OpenOptions, openImage } from '#tsnbd/image/open-image.js';
import { qcow2Bytes } from '../image/qcow2/qcow2-bytes.js';
import { ProtocolClient } from '../server/protocol-client.js';
import { freePort } from './peers.js';
import { run, runTsnbd, type Served, serveUnix, succeed, TSNBD } from './served.js';

let folder: string;
let served: Served | undefined;
const inFolder = (name: string) => join(folder, name);
const qemuImg = (...args: string[]) => execFileSync('qemu-img', args, { cwd: folder, encoding: 'utf8' });
const qemuIo = (image: string, ...commands: string[]) =>
  execFileSync('qemu-io', [image, ...commands.flatMap((command) => ['-c', command])], { cwd: folder });

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-served-'));
  qemuImg('create', '-q', '-f', 'qcow2', 'base.qcow2', '64M');
  qemuIo('base.qcow2', 'write -P 1 0 3M', 'write -z 3M 1M', 'write -P 2 40M 5M');
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'disk.qcow2');
  qemuIo('disk.qcow2', 'write -P 3 1M 1M', 'write -z 41M 64k', 'write -P 4 60M 1000');
});
afterEach(async () => {
  await served?.stop();
  served = undefined;
  rmSync(folder, { recursive: true });
});

describe('a qcow2 image on another one is served', () => {
  beforeEach(async () => {
    served = await serveUnix(inFolder('socket'), inFolder('disk.qcow2'), '-f', 'qcow2', '-r', '-e', '0', '-t');
  });

  it('as the disk that QEMU sees', async () => {
    const uri = served?.uri ?? '';
    await succeed('nbdcopy', '--connections=4', uri, inFolder('copy.raw'));
    expect(qemuImg('compare', '-f', 'raw', '-F', 'qcow2', 'copy.raw', 'disk.qcow2')).toContain('identical');
    const compared = await succeed('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', uri, inFolder('disk.qcow2'));
    expect(compared).toContain('identical');
  });

  it('with what is allocated, and in which of the images', async () => {
    const map = async (context: string) => {
      const rows = JSON.parse(await succeed('nbdinfo', '--json', `--map=${context}`, served?.uri ?? ''));
      return rows.map((row: { offset: number; length: number; type: number }) => [row.offset, row.length, row.type]);
    };
    const [k, m] = [1024, 1 << 20];
    expect(await map('qemu:allocation-depth')).toEqual([
      [0, m, 2],
      [m, m, 1],
      [2 * m, 2 * m, 2],
      [4 * m, 36 * m, 0],
      [40 * m, m, 2],
      [41 * m, 64 * k, 1],
      [41 * m + 64 * k, 4 * m - 64 * k, 2],
      [45 * m, 15 * m, 0],
      [60 * m, 64 * k, 1],
      [60 * m + 64 * k, 4 * m - 64 * k, 0],
    ]);
    expect(await map('base:allocation')).toEqual([
      [0, 3 * m, 0],
      [3 * m, 37 * m, 3],
      [40 * m, m, 0],
      [41 * m, 64 * k, 3],
      [41 * m + 64 * k, 4 * m - 64 * k, 0],
      [45 * m, 15 * m, 3],
      [60 * m, 64 * k, 0],
      [60 * m + 64 * k, 4 * m - 64 * k, 3],
    ]);
  });
});

it('that an image is marked as corrupt is told while clients stay', async () => {
  const { bytes, l1At, l2At } = qcow2Bytes({
    sizeBytes: 1 << 20,
    clusters: new Map([[0, { kind: 'data', bytes: new Uint8Array(65_536) } as const]]),
  });
  bytes.writeBigUInt64BE((1n << 63n) | BigInt(l1At), l2At.get(0) ?? 0);
  writeFileSync(inFolder('bad.qcow2'), bytes);
  served = await serveUnix(inFolder('socket'), inFolder('bad.qcow2'), '-f', 'qcow2', '-t');
  const client = spawn('qemu-io', ['-f', 'raw', served.uri], { stdio: ['pipe', 'pipe', 'inherit'] });
  client.stdin.write('write 0 512\n');
  const expected = `tsnbd: ${inFolder('bad.qcow2')} has tables that contradict each other, and nothing is written any more`;
  await expect.poll(() => served?.said()).toContain(expected);
  expect(client.exitCode).toBe(null);
  client.stdin.end('quit\n');
  await new Promise((resolve) => client.once('exit', resolve));
});

it('what four connections write to it is there when the server has ended, and the image has no errors', async () => {
  qemuImg('create', '-q', '-f', 'raw', 'source.raw', '64M');
  const writes = ['write -P 7 100k 9M', 'write -P 8 20M 3M', 'write -P 9 41M 17k'].flatMap((command) => [
    '-c',
    command,
  ]);
  execFileSync('qemu-io', ['-f', 'raw', 'source.raw', ...writes], { cwd: folder, stdio: 'ignore' });
  served = await serveUnix(inFolder('socket'), inFolder('disk.qcow2'), '-f', 'qcow2', '-e', '0', '-t');
  await succeed('nbdcopy', '--connections=4', '--requests=16', inFolder('source.raw'), served.uri);
  await succeed(
    'qemu-io',
    '-f',
    'raw',
    '-c',
    'write -P 5 50M 2M',
    '-c',
    'discard 51M 1M',
    '-c',
    'write -z 20M 1M',
    served.uri,
  );
  expect(await served.stop()).toBe(0);
  served = undefined;
  expect(qemuImg('check', 'disk.qcow2')).toContain('No errors were found');
  const rest = ['write -P 5 50M 2M', 'write -z 51M 1M', 'write -z 20M 1M'].flatMap((command) => ['-c', command]);
  execFileSync('qemu-io', ['-f', 'raw', 'source.raw', ...rest], { cwd: folder, stdio: 'ignore' });
  expect(qemuImg('compare', '-f', 'raw', '-F', 'qcow2', 'source.raw', 'disk.qcow2')).toContain('identical');
});

it('what the last client wrote is there when it has left without a flush, and the server is killed then', async () => {
  served = await serveUnix(inFolder('socket'), inFolder('disk.qcow2'), '-f', 'qcow2', '-t');
  const client = await ProtocolClient.negotiate(createConnection(inFolder('socket')));
  expect((await client.write(20 << 20, Buffer.alloc(300_000, 9))).error).toBe(0);
  const found = (byte: number) => {
    const read = ['-U', '-r', '-c', `read -P ${byte} 20M 300000`, 'disk.qcow2'];
    return execFileSync('qemu-io', read, { cwd: folder, encoding: 'utf8' });
  };
  expect(found(0)).not.toMatch(/failed/);
  await client.disconnect();
  served.kill();
  expect(await served.exit).toBe(null);
  expect(qemuImg('check', 'disk.qcow2')).toContain('No errors were found');
  expect(found(9)).not.toMatch(/failed/);
});

it('an image is made, described, served without -f, and checked by tsnbd where there is no QEMU', async () => {
  const port = await freePort();
  const nothing = inFolder('nothing');
  mkdirSync(nothing);
  const script = `
    "$0" "$1" create -f qcow2 test01.img 10G && "$0" "$1" info test01.img && "$0" "$1" check test01.img
    "$0" "$1" --bind=0.0.0.0 --port=${port} test01.img &
    until "$0" "$1" info nbd://127.0.0.1:${port} 2>/dev/null; do :; done
    "$0" "$1" map nbd://127.0.0.1:${port} && wait $! && "$0" "$1" check test01.img`;
  const { status, stdout, stderr } = await run(
    'env',
    '-C',
    folder,
    `PATH=${nothing}`,
    '/bin/sh',
    '-c',
    script,
    process.execPath,
    TSNBD,
  );
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  expect(stdout).toMatch(/^Formatting 'test01.img', fmt=qcow2 /);
  expect(stdout).toMatch(/file format: qcow2\nvirtual size: 10 GiB/);
  expect(stdout.match(/No errors were found on the image\./g)).toHaveLength(2);
  expect(stdout).toMatch(/^ *0 {2}10737418240 {4}3 {2}hole,zero$/m);
});

it('tsnbd says why an image is not opened', async () => {
  qemuImg('create', '-q', '-f', 'qcow2', '-u', '-b', 'base.qcow2', '-F', 'vmdk', 'bad.qcow2', '1M');
  const { status, stderr } = await runTsnbd('-r', '--socket', inFolder('socket'), inFolder('bad.qcow2'));
  expect(status).toBe(6);
  expect(stderr).toBe(`tsnbd: ${inFolder('bad.qcow2')} has a backing file of the format 'vmdk', not raw or qcow2\n`);
});

describe('the locks of a qcow2 image', () => {
  let ours: OpenedImage | undefined;
  afterEach(() => ours?.close());

  function weOpen(options: Partial<OpenOptions> = {}): void {
    ours = openImage(inFolder('disk.qcow2'), { readOnly: true, ...options });
  }

  it('keep QEMU from writing to it, and to what is behind it', () => {
    weOpen();
    expect(() => qemuIo('disk.qcow2', 'write 0 512')).toThrow(/lock/);
    expect(() => qemuIo('base.qcow2', 'write 0 512')).toThrow(/lock/);
    expect(qemuImg('info', 'disk.qcow2')).toContain('qcow2');
    ours?.close();
    ours = undefined;
    qemuIo('disk.qcow2', 'write -P 4 60M 1000');
  });

  it('are found when QEMU has it, who is named, and -U opens it all the same', async () => {
    const socket = inFolder('qemu');
    const qemu = spawn('qemu-nbd', ['-t', '-k', socket, '-f', 'qcow2', 'disk.qcow2'], { cwd: folder, stdio: 'ignore' });
    const ended = new Promise((resolve) => qemu.once('exit', resolve));
    try {
      await expect.poll(() => existsSync(socket)).toBe(true);
      await succeed('nbdinfo', '--size', `nbd+unix:///?socket=${socket}`);
      expect(isRefused(qemu.pid)).toBe(true);
      weOpen({ forceShare: true });
      const server = await serveUnix(inFolder('ours'), inFolder('disk.qcow2'), '-f', 'qcow2', '-r', '-U');
      expect(await server.stop()).toBe(0);
    } finally {
      qemu.kill();
      await ended;
    }
  }, 60_000);

  function isRefused(pid: number | undefined): boolean {
    try {
      openImage(inFolder('disk.qcow2'), { readOnly: true }).close();
      return false;
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      expect(error.code).toBe('in-use');
      expect(error.message).toContain(`by qemu-nbd (process ${pid})`);
      return true;
    }
  }
});
