import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { longTest } from '../long.js';
import { makeHoleyDisk } from './holey-disk.js';
import { qemuNbd } from './peers.js';
import { run, runTsnbd, succeed } from './served.js';

let folder: string;
let image: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-image-tools-'));
  image = join(folder, 'disk.raw');
});
afterEach(() => rmSync(folder, { recursive: true }));

const json = async (text: Promise<string>) => JSON.parse(await text);
const tsnbd = async (...args: string[]) => {
  const { status, stdout, stderr } = await runTsnbd(...args);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
};

describe('an image', () => {
  test('is described as qemu-img does', async () => {
    makeHoleyDisk(image);
    expect(await tsnbd('info', image)).toBe(await succeed('qemu-img', 'info', '-f', 'raw', image));
    expect(await json(tsnbd('info', '--json', image))).toEqual(
      await json(succeed('qemu-img', 'info', '-f', 'raw', '--output=json', image)),
    );
  });

  test.each([512, 1_024_000, 1_048_576, 1_500_160, 123_456_789_504, 5 * 2 ** 40])(
    'of %i bytes has the size that qemu-img shows',
    async (bytes) => {
      writeFileSync(image, '');
      truncateSync(image, bytes);
      expect(await tsnbd('info', image)).toBe(await succeed('qemu-img', 'info', '-f', 'raw', image));
    },
  );

  test('of another format is said to be one', async () => {
    await succeed('qemu-img', 'create', '-q', '-f', 'vmdk', image, '1M');
    for (const command of ['info', 'map']) {
      expect(await runTsnbd(command, image)).toMatchObject({
        status: 6,
        stdout: '',
        stderr: expect.stringContaining('is a vmdk image'),
      });
    }
    expect(await tsnbd('info', '-f', 'raw', image)).toBe(await succeed('qemu-img', 'info', '-f', 'raw', image));
    expect(await json(tsnbd('map', '-f', 'raw', '--json', image))).toEqual(
      await json(succeed('qemu-img', 'map', '-f', 'raw', '--output=json', image)),
    );
  });

  test('is mapped as qemu-img does', async () => {
    makeHoleyDisk(image);
    expect(await json(tsnbd('map', '--json', image))).toEqual(
      await json(succeed('qemu-img', 'map', '-f', 'raw', '--output=json', image)),
    );
    expect(await tsnbd('map', image)).toMatch(/^ {9}0 {7}65536 {4}0 {2}data\n {5}65536 {7}65536 {4}3 {2}hole,zero\n/);
    const picture = join(folder, 'map.svg');
    expect(await tsnbd('map', '--svg', picture, image)).toBe('');
    expect(readFileSync(picture, 'utf8')).toContain('>data: 4.32 MiB<');
    // A limit of file sizes stands for a disk that becomes full.
    const limited = `ulimit -f 1; trap '' XFSZ; exec "$0" "$1" map --svg "$2" "$3"`;
    const program = join(import.meta.dirname, '../../dist/tsnbd.js');
    expect(await run('bash', '-c', limited, process.execPath, program, picture, image)).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^tsnbd: cannot write .*map\.svg: .*\(EFBIG\)\n$/),
    });
    expect(readFileSync(picture, 'utf8')).toContain('>data: 4.32 MiB<');
    expect(readdirSync(folder).filter((name) => name.includes('svg'))).toEqual(['map.svg']);
  });

  test('a qcow2 and what is behind it are mapped as qemu-img does', async () => {
    const [base, top] = [join(folder, 'base.qcow2'), join(folder, 'top.qcow2')];
    await succeed('qemu-img', 'create', '-f', 'qcow2', base, '8M');
    await succeed('qemu-io', '-c', 'write 1M 1M', '-c', 'write -z 3M 1M', base);
    await succeed('qemu-img', 'create', '-f', 'qcow2', '-b', base, '-F', 'qcow2', top, '10M');
    await succeed('qemu-io', '-c', 'write 1536k 1M', '-c', 'write -z 5M 64k', '-c', 'write -z -u 6M 64k', top);
    const theirs: Record<string, unknown>[] = await json(succeed('qemu-img', 'map', '--output=json', top));
    const ours: Record<string, unknown>[] = await json(tsnbd('map', '--json', top));
    // How deep there is nothing is not told.
    const told = (pieces: typeof ours) => pieces.filter(({ present }) => present);
    expect(told(ours)).toEqual(told(theirs));
    expect(told(ours)).toHaveLength(5);
    expect(told(ours).filter(({ offset }) => offset !== undefined)).toHaveLength(2);
    const MIB = 1_048_576;
    expect(await tsnbd('map', top)).toBe(
      [
        `         0  ${' '.repeat(3)}${MIB}    3  hole,zero\n`,
        `   ${MIB}  ${' '.repeat(3)}${1.5 * MIB}    0  data\n`,
        `   ${2.5 * MIB}  ${' '.repeat(3)}${7.5 * MIB}    3  hole,zero\n`,
      ].join(''),
    );
    expect(await json(tsnbd('info', '--json', top))).toMatchObject({ format: 'qcow2', 'virtual-size': 10 * MIB });
    for (const words of [[], ['--backing-chain']]) {
      expect(await tsnbd('info', ...words, top)).toBe(await succeed('qemu-img', 'info', ...words, top));
    }
  });

  test.each(['cluster_size=64k', 'extended_l2=on,cluster_size=64k'])(
    'zeroes of a qcow2 that has storage for them lie where qemu-img says: %s',
    async (options) => {
      const disk = join(folder, 'disk.qcow2');
      await succeed('qemu-img', 'create', '-f', 'qcow2', '-o', options, disk, '8M');
      const places = [3, 0, 2, 1, 8, 9, 10].flatMap((cluster) => ['-c', `write ${64 * cluster}k 64k`]);
      await succeed('qemu-io', ...places, '-c', 'write -z 0 256k', '-c', 'write -z 512k 192k', disk);
      const ours = await json(tsnbd('map', '--json', disk));
      const theirs: Record<string, unknown>[] = await json(succeed('qemu-img', 'map', '--output=json', disk));
      const told = (pieces: typeof theirs) => pieces.filter(({ present }) => present);
      expect(told(ours)).toEqual(told(theirs));
      expect(told(ours)).toHaveLength(5);
    },
  );

  longTest('is mapped to the last line for a reader that takes its time', async () => {
    const fd = openSync(image, 'w');
    for (let piece = 0; piece < 4_000; piece += 1) writeSync(fd, Buffer.alloc(4_096, 7), 0, 4_096, piece * 65_536);
    closeSync(fd);
    const command = `"$0" "$1" map "$2" | (sleep 12; cat)`;
    const program = join(import.meta.dirname, '../../dist/tsnbd.js');
    const { stdout } = await run('sh', '-c', command, process.execPath, program, image);
    expect(stdout.split('\n').length).toBe(2 * 4_000);
    const gone = await run('sh', '-c', `"$0" "$1" map "$2" | head -1`, process.execPath, program, image);
    expect(gone).toMatchObject({ status: 0, stdout: expect.stringMatching(/^ {9}0 .*data\n$/), stderr: '' });
  });

  test('is not drawn where nobody can write', async () => {
    makeHoleyDisk(image);
    expect(await runTsnbd('map', '--svg', join(folder, 'none', 'map.svg'), image)).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^tsnbd: cannot write .*map\.svg: .*\(ENOENT\)\n$/),
    });
  });
});

describe('an image is created as qemu-img does it:', () => {
  /** QEMU writes a first block into a sparse image, by which it finds out later how to align direct I/O; ours need it not. */
  const created = (path: string, allocates: boolean) => {
    const { size, blocks, mode } = statSync(path);
    return { size, blocks: allocates ? blocks : undefined, mode };
  };

  test.each([
    ['1M'],
    ['-f', 'raw', '1M'],
    ['1000'],
    ['1.5k'],
    ['0.1k'],
    ['0x1000'],
    ['3g'],
    ['2T'],
    ['0'],
    ['-o', 'preallocation=off', '1M'],
    ['-o', 'preallocation=falloc', '1M'],
    ['-o', 'preallocation=full', '1M'],
    ['-o', 'preallocation=off,preallocation=full', '1000'],
    ['-q', '1M'],
  ])('%s %s %s', async (...args) => {
    const [options, size = ''] = [args.slice(0, -1), args.at(-1)];
    const [ours, theirs] = [join(folder, 'a'), join(folder, 'b')];
    const said = await tsnbd('create', ...options, ours, size);
    const expected = await succeed(
      'qemu-img',
      'create',
      ...(options.includes('-f') ? [] : ['-f', 'raw']),
      ...options,
      theirs,
      size,
    );
    expect(said.replace(ours, theirs)).toBe(expected);
    const allocates = /falloc|full/.test(args.join(' '));
    expect(created(ours, allocates)).toEqual(created(theirs, allocates));
    if (!allocates) expect(statSync(ours).blocks).toBe(0);
    if (size !== '0') expect(await succeed('qemu-img', 'info', '-f', 'raw', ours)).toContain('file format: raw');
  });

  test('over a file that is there, which loses what it holds', async () => {
    const theirs = join(folder, 'b');
    for (const path of [image, theirs]) writeFileSync(path, Buffer.alloc(2_097_152, 7));
    await tsnbd('create', image, '1M');
    await succeed('qemu-img', 'create', '-q', '-f', 'raw', theirs, '1M');
    expect(readFileSync(image).equals(readFileSync(theirs))).toBe(true);
    expect(created(image, false)).toEqual(created(theirs, false));
  });

  test.each([
    ['1x', []],
    ['-1', ['--']],
    ['1kb', []],
    ['7E', []],
    ['16E', []],
    ['1M', ['-o', 'foo=1']],
    ['1M', ['-o', 'preallocation=metadata']],
    ['1M', ['-o', 'preallocation=no']],
  ])('not with %s %j', async (size, options) => {
    const theirs = await run('qemu-img', 'create', '-f', 'raw', ...options, join(folder, 'b'), size);
    const ours = await runTsnbd('create', ...options, image, size);
    expect(theirs.status).not.toBe(0);
    expect(ours).toMatchObject({ status: 2, stdout: '', stderr: expect.stringMatching(/^tsnbd: [^\n]+\n$/) });
    expect(existsSync(image)).toBe(false);
  });

  test('not half: what does not fit is not there afterwards, and a file that was is empty', async () => {
    const command = 'ulimit -f 100; exec "$0" "$1" create -q -o preallocation=full "$2" 1M';
    const program = join(import.meta.dirname, '../../dist/tsnbd.js');
    const limited = () => run('sh', '-c', command, process.execPath, program, image);
    const refused = { status: 1, stderr: expect.stringMatching(/^tsnbd: cannot make .*disk\.raw .*\(EFBIG\)\n$/) };
    expect(await limited()).toMatchObject(refused);
    expect(existsSync(image)).toBe(false);
    writeFileSync(image, 'what it holds');
    expect(await limited()).toMatchObject(refused);
    expect(statSync(image).size).toBe(0);
  });

  test('not after Ctrl-C', async () => {
    const program = join(import.meta.dirname, '../../dist/tsnbd.js');
    const child = spawn(process.execPath, [program, 'create', '-o', 'preallocation=full', image, '2G'], {
      stdio: 'pipe',
    });
    const exit = once(child, 'close');
    let said = '';
    child.stderr.on('data', (text) => {
      said += text;
    });
    await expect.poll(() => existsSync(image) && statSync(image).size > 0, { interval: 5, timeout: 60_000 }).toBe(true);
    child.kill('SIGINT');
    expect(await exit).toEqual([1, null]);
    expect(said).toBe(`tsnbd: interrupted; did not make ${image}\n`);
    expect(existsSync(image)).toBe(false);
  });

  test('and tells on a terminal how far it is', async () => {
    const program = join(import.meta.dirname, '../../dist/tsnbd.js');
    const command = `${process.execPath} ${program} create -o preallocation=full ${image} 20M`;
    expect((await run('script', '-qec', command, '/dev/null')).stdout).toMatch(
      /fmt=raw .*\r\n(\r\[=* *\] \d+ %)+\r +\r$/,
    );
    expect((await run('script', '-qec', command.replace('create', 'create -q'), '/dev/null')).stdout).toBe('');
  });

  test('not where there is no place, and not over one in use', async () => {
    const nowhere = await runTsnbd('create', join(folder, 'none', 'x'), '1M');
    expect(nowhere).toMatchObject({ status: 1, stderr: expect.stringMatching(/^tsnbd: cannot create .*ENOENT.*\n$/) });
    writeFileSync(image, Buffer.alloc(1_048_576, 7));
    const server = await qemuNbd(folder, '', '-t', '-f', 'raw', image);
    await succeed('nbdinfo', server.uri); // only then has it opened the image
    const used = await runTsnbd('create', image, '512');
    await server.stop();
    expect(used).toMatchObject({
      status: 5,
      stderr: expect.stringMatching(/disk\.raw is in use by qemu-nbd \(process \d+\)/),
    });
    expect(readFileSync(image).equals(Buffer.alloc(1_048_576, 7))).toBe(true);
  });
});
