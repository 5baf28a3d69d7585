import { execFileSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { emptyExtent } from '#tsnbd/image/image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { emptyOverlay } from '#tsnbd/image/qcow2/empty-image.js';
import { openFdsOf } from '../open-fds.js';
import { runTsnbd, type Served, serveUnix, sha256, succeed } from './served.js';

let folder: string;
let overlays: string;
let before: string | undefined;
let served: Served | undefined;
const inFolder = (name: string) => join(folder, name);
const qemuImg = (...args: string[]) => execFileSync('qemu-img', args, { cwd: folder, encoding: 'utf8' });
const qemuIo = (image: string, ...commands: string[]) =>
  execFileSync('qemu-io', [...commands.flatMap((command) => ['-c', command]), image], { cwd: folder, stdio: 'pipe' });

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-temporary-'));
  overlays = inFolder('overlays');
  mkdirSync(overlays);
  before = process.env.TMPDIR;
  process.env.TMPDIR = overlays;
});
afterEach(async () => {
  await served?.stop();
  served = undefined;
  if (before === undefined) delete process.env.TMPDIR;
  else process.env.TMPDIR = before;
  rmSync(folder, { recursive: true });
});

/** An image of 24 MiB in `disk`, and what a client will write to it in `source.raw`. */
function make(format: 'raw' | 'qcow2'): void {
  qemuImg('create', '-q', '-f', format, 'disk', '24M');
  execFileSync('qemu-io', ['-f', format, '-c', 'write -P 5 1M 9M', inFolder('disk')]);
  qemuImg('create', '-q', '-f', 'raw', 'source.raw', '24M');
  execFileSync('qemu-io', [
    '-f',
    'raw',
    '-c',
    'write -P 7 100k 5M',
    '-c',
    'write -P 8 19M 17k',
    inFolder('source.raw'),
  ]);
}

it.each(['raw', 'qcow2'] as const)(
  'what is written to a %s image with -s is gone at the end, and shared until then',
  async (format) => {
    make(format);
    const [image, source] = [sha256(inFolder('disk')), sha256(inFolder('source.raw'))];
    const { mtimeMs } = statSync(inFolder('disk'));
    served = await serveUnix(inFolder('socket'), inFolder('disk'), '-f', format, '-s', '-e', '0', '-t');
    await succeed('nbdcopy', '--connections=4', '--requests=16', inFolder('source.raw'), served.uri);
    await succeed('nbdcopy', '--connections=4', served.uri, inFolder('copy.raw'));
    expect(sha256(inFolder('copy.raw'))).toBe(source);
    expect(readdirSync(overlays)).toEqual([]);
    // Others may read the image meanwhile, and not write to it.
    expect(() => qemuIo('disk', 'write 0 512')).toThrow(/lock/);
    qemuImg('info', 'disk');
    expect(await served.stop()).toBe(0);
    served = undefined;
    expect([sha256(inFolder('disk')), statSync(inFolder('disk')).mtimeMs]).toEqual([image, mtimeMs]);
    expect(readdirSync(overlays)).toEqual([]);
  },
);

it('a server that is killed leaves nothing behind', async () => {
  make('raw');
  const image = sha256(inFolder('disk'));
  served = await serveUnix(inFolder('socket'), inFolder('disk'), '-s', '-t');
  await succeed('qemu-io', '-f', 'raw', '-c', 'write -P 9 0 1M', '-c', 'flush', served.uri);
  served.kill();
  expect(await served.exit).toBe(null);
  served = undefined;
  expect(sha256(inFolder('disk'))).toBe(image);
  expect(readdirSync(overlays)).toEqual([]);
});

it('the image is opened for reading only, and all of it is closed at the end', () => {
  make('raw');
  const opened = openImage(inFolder('disk'), { readOnly: false, temporary: true, format: 'raw' });
  const { handle } = opened;
  if (handle.format !== 'qcow2' || handle.backing === undefined) throw new Error('it has no overlay');
  expect(readFileSync(`/proc/self/fdinfo/${handle.backing.fd}`, 'latin1')).toMatch(/^flags:\s*0\d*0$/m);
  const image = imageFrom(handle);
  const extent = emptyExtent();
  expect(image.write(5 << 20, 3, Buffer.alloc(3, 1), 0, true)).toBe(0);
  expect(image.status(5 << 20, 1 << 20, extent)).toBe(0);
  expect(extent).toMatchObject({ lengthBytes: 65_536, hole: false, zero: false, depth: 1 });
  expect(image.trim(2 << 20, 1 << 20, false)).toBe(0);
  const read = Buffer.alloc(8, 0xee);
  expect(image.read(2 << 20, 8, read, 0)).toBe(0);
  expect(read.equals(Buffer.alloc(8))).toBe(true);
  expect(image.read((5 << 20) - 2, 8, read, 0)).toBe(0);
  expect([...read]).toEqual([5, 5, 1, 1, 1, 5, 5, 5]);
  image.close();
  opened.close();
  expect(openFdsOf(inFolder('disk'))).toBe(0);
});

it('on a snapshot, what it was can be written to', () => {
  make('qcow2');
  qemuImg('snapshot', '-c', 'one', 'disk');
  qemuIo('disk', 'write -P 6 1M 9M');
  const opened = openImage(inFolder('disk'), { readOnly: false, temporary: true, snapshot: { idOrName: 'one' } });
  const image = imageFrom(opened.handle);
  const read = Buffer.alloc(4);
  expect(image.write(2 << 20, 2, Buffer.from([1, 2]), 0, false)).toBe(0);
  expect(image.read(2 << 20, 4, read, 0)).toBe(0);
  expect([...read]).toEqual([1, 2, 5, 5]);
  image.close();
  opened.close();
});

it('where no overlay can be made, that is said, and nothing stays open', async () => {
  make('raw');
  process.env.TMPDIR = inFolder('nowhere');
  expect(() => openImage(inFolder('disk'), { readOnly: false, temporary: true })).toThrow('the temporary overlay of');
  expect(openFdsOf(inFolder('disk'))).toBe(0);
  const { status, stderr } = await runTsnbd('-s', '-k', inFolder('socket'), inFolder('disk'));
  expect(status).toBe(1);
  expect(stderr).toBe(
    `tsnbd: cannot make the temporary overlay of ${inFolder('disk')} in ${inFolder('nowhere')}: no such file or directory (ENOENT)\n`,
  );
});

it.each([512, 64 << 20, 2 ** 40, 2 ** 51, 2 ** 51 + 2 ** 20, 2 ** 53 - 512])(
  'an empty overlay of %i bytes is one to QEMU',
  (sizeBytes) => {
    const { head, fileBytes } = emptyOverlay('overlay', sizeBytes, { name: 'below', format: 'raw' });
    const fd = openSync(inFolder('overlay'), 'w');
    writeSync(fd, head);
    ftruncateSync(fd, fileBytes);
    closeSync(fd);
    qemuImg('create', '-q', '-f', 'raw', 'below', '1M');
    expect(qemuImg('check', 'overlay')).toContain('No errors were found');
    const info = JSON.parse(qemuImg('info', '--output=json', 'overlay'));
    expect(info).toMatchObject({ format: 'qcow2', 'virtual-size': sizeBytes, 'backing-filename': 'below' });
  },
);
