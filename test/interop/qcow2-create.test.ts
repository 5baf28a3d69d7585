import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { imagesAsJson } from '#tsnbd/cli/image-report.js';
import { formattingLine } from '#tsnbd/cli/new-image.js';
import type { CreateAction } from '#tsnbd/cli/tsnbd-create-options.js';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';
import { checkImage } from '#tsnbd/image/check-image.js';
import { createImage } from '#tsnbd/image/create-image.js';
import { describeImage } from '#tsnbd/image/describe-image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { readAll, withImage } from '../image/qcow2/open-qcow2.js';
import { seeded } from '../server/seeded.js';
import { qemuNbd } from './peers.js';
import { changeAtRandom } from './random-changes.js';
import { runTsnbd, succeed } from './served.js';

const MIB = 1 << 20;
const SIZE = 5 * MIB + 1_024;
/** Of each image by each of two workers. */
const CHANGES = 40;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-qcow2-create-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const at = (name: string) => join(folder, name);
const qemuImg = (...args: string[]) => execFileSync('qemu-img', args, { cwd: folder, encoding: 'utf8' });
const words = (line: string) => line.split(' ').filter((word) => word !== '');

const parsed = (args: string): CreateAction => {
  const action = parseTsnbd(['create', '-f', 'qcow2', ...words(args)]);
  if (action.kind !== 'create') throw new Error(JSON.stringify(action));
  return action;
};

/** What `tsnbd create` does, in this process; `args` as typed in the folder. Answers what it prints. */
async function create(args: string): Promise<string> {
  const { path, ...action } = parsed(args);
  let told = '';
  await createImage(
    { ...action, path: at(path) },
    {
      stop: new AbortController().signal,
      onBegin: (sizeBytes) => {
        told = formattingLine(path, action.image, sizeBytes);
      },
      onProgress: () => {},
    },
  );
  return told;
}

/** What qemu-img says of an image, but for the storage that it takes. */
const info = (path: string) => {
  const { 'actual-size': _, ...facts } = JSON.parse(qemuImg('info', '--output=json', path));
  return facts;
};

const check = (path: string) => {
  const args = ['check', '-U', '--output=json', path];
  const { filename: _, 'image-end-offset': end, ...facts } = JSON.parse(qemuImg(...args));
  return { facts, end };
};

/** What we say of `disk.qcow2` in a folder. */
const described = (where: string) => {
  const told = imagesAsJson([describeImage(join(where, 'disk.qcow2'), {})], false).replaceAll(`${where}/`, '');
  const { 'actual-size': _, ...facts } = JSON.parse(told);
  return facts;
};

const checked = (where: string) => {
  const watch = { onFinding: () => {}, onProgress: () => {} };
  const result = checkImage(join(where, 'disk.qcow2'), { repair: undefined }, watch);
  if (result === 'raw') throw new Error('it is raw');
  const { imageEndBytes: end, ...facts } = result;
  return { facts, end };
};

/** One image of each layout that differs. */
const WRITTEN_BY_QEMU = /^SIZE|bits=1,|bits=64|extended_l2=on,cl|full,cl|-b base.raw -F raw 9M|data_file_raw=on S/;

let bases: string;
beforeAll(() => {
  bases = mkdtempSync(join(tmpdir(), 'tsnbd-qcow2-bases-'));
  const make = (...args: string[]) => execFileSync('qemu-img', ['create', '-q', '-f', ...args], { cwd: bases });
  make('raw', 'base.raw', '3000000');
  make('qcow2', 'base.qcow2', '7M');
  make('qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'middle.qcow2');
  for (const [name, format] of [
    ['base.raw', 'raw'],
    ['base.qcow2', 'qcow2'],
  ]) {
    execFileSync('qemu-io', ['-f', format ?? '', '-c', 'write -P 7 1M 100k', name ?? ''], { cwd: bases });
  }
});
afterAll(() => rmSync(bases, { recursive: true }));

function makeBases(where = folder): void {
  for (const name of readdirSync(bases)) copyFileSync(join(bases, name), join(where, name));
}

/** As typed, with the image before the size. */
function lineOf(given: string): string {
  const typed = words(given.replace('SIZE', String(SIZE)));
  const size = /^[0-9]/.test(typed.at(-1) ?? '') ? [typed.pop() ?? ''] : [];
  return [...typed, 'disk.qcow2', ...size].join(' ');
}

describe('a qcow2 image is created as qemu-img does it:', () => {
  const CASES = [
    'SIZE',
    '-o cluster_size=512 SIZE',
    '-o cluster_size=2M SIZE',
    '-o cluster_size=0x1000 3M',
    '-o compat=0.10 SIZE',
    '-o compat=v2,preallocation=metadata SIZE',
    '-o compat=1.1 -o lazy_refcounts=on SIZE',
    '-o compat=v3,compression_type=zstd SIZE',
    '-o refcount_bits=1,cluster_size=512,preallocation=metadata SIZE',
    '-o refcount_bits=2,cluster_size=1024,preallocation=metadata SIZE',
    '-o refcount_bits=4,preallocation=metadata SIZE',
    '-o refcount_bits=64,cluster_size=512,preallocation=falloc SIZE',
    '-o extended_l2=on SIZE',
    '-o extended_l2=on,cluster_size=16k,preallocation=metadata SIZE',
    '-o preallocation=metadata SIZE',
    '-o preallocation=falloc SIZE',
    '-o preallocation=full,cluster_size=4k SIZE',
    '-o preallocation=metadata,cluster_size=2M 10G',
    '1000',
    '0',
    '20T',
    '-b base.raw -F raw',
    '-b base.raw -F raw 9M',
    '-b base.qcow2 -F qcow2',
    '-o cluster_size=512 -b base.qcow2 -F qcow2 1M',
    '-o extended_l2=on,preallocation=metadata -b base.raw -F raw',
    '-u -b a,base.raw -F raw 3M',
    '-o data_file=d.raw SIZE',
    '-o data_file=d.raw,preallocation=metadata SIZE',
    '-o data_file=d.raw,preallocation=falloc,extended_l2=on SIZE',
    '-o data_file=d.raw,preallocation=full SIZE',
    '-o data_file=d.raw,data_file_raw=on SIZE',
    '-o data_file=d.raw,data_file_raw=on,preallocation=off,cluster_size=512 SIZE',
    '-o data_file=d.raw -b base.raw -F raw',
  ];
  let theirs: string;
  let theirLines: readonly string[];
  beforeAll(() => {
    theirs = mkdtempSync(join(tmpdir(), 'tsnbd-qcow2-theirs-'));
    const script = CASES.map((given, index) => {
      const where = join(theirs, String(index));
      mkdirSync(where);
      if (given.includes('base')) makeBases(where);
      return `cd ${where} && qemu-img create -f qcow2 ${lineOf(given)}`;
    });
    const told = execFileSync('sh', ['-ec', script.join('\n')], { encoding: 'utf8' });
    theirLines = told.split(/^(?=Formatting)/m);
  });
  afterAll(() => rmSync(theirs, { recursive: true }));

  test.each(CASES.map((given, index) => [given, index] as const))('%s', async (given, index) => {
    if (given.includes('base')) makeBases();
    if (given.includes('a,base')) copyFileSync(at('base.raw'), at('a,base.raw'));
    const place = join(theirs, String(index));
    const their = { info: described(place), ...checked(place) };

    expect(await create(lineOf(given))).toBe(theirLines[index]);
    const our = checked(folder);
    expect(our.facts).toEqual(their.facts);
    expect(statSync(at('disk.qcow2')).size).toBe(our.end);
    // QEMU rounds it up to whole clusters where it preallocates.
    const hasData = existsSync(join(place, 'd.raw'));
    const sizeBytes = Number(their.info['virtual-size']);
    expect(hasData ? statSync(at('d.raw')).size : sizeBytes).toBe(sizeBytes);
    const storage = hasData ? statSync(at('d.raw')) : statSync(at('disk.qcow2'));
    expect(storage.blocks * 512 >= SIZE).toBe(/falloc|full/.test(given));
    const isSmall = sizeBytes > 0 && sizeBytes < 1e9;
    const disk = Buffer.alloc(isSmall ? sizeBytes : 0);
    if (isSmall) {
      if (given.includes('base')) disk.fill(7, MIB, Math.min(MIB + 102_400, disk.length));
      withImage(at('disk.qcow2'), (image) => expect(readAll(image).equals(disk)).toBe(true));
      changeOurs(disk);
    }
    // Each reads what the other has made; how they read the same image is compared where they describe and check it.
    const writeBytes = Math.min(sizeBytes - 512, 200_192);
    const isWritten = isSmall && WRITTEN_BY_QEMU.test(given);
    if (isWritten) disk.fill(5, 512, 512 + writeBytes);
    const commands = [
      'qemu-img info --output=json disk.qcow2',
      ...(isWritten ? [`qemu-io -c 'write -P 5 512 ${writeBytes}' disk.qcow2 >&2`] : []),
      'qemu-img check --output=json disk.qcow2',
      ...(isSmall ? ['qemu-img convert -O raw disk.qcow2 their.raw'] : []),
    ];
    const told = execFileSync('sh', ['-ec', commands.join('\n')], { cwd: folder, encoding: 'utf8', stdio: 'pipe' });
    if (isSmall) expect(readFileSync(at('their.raw')).equals(disk)).toBe(true);
    if (given.includes('data_file_raw')) expect(readFileSync(at('d.raw')).equals(disk)).toBe(true);
    const [{ 'actual-size': _, ...info }, check] = JSON.parse(`[${told.replace(/^}\n{/m, '},{')}]`);
    expect(info).toEqual(their.info);
    expect(check).toMatchObject({ 'check-errors': 0, format: 'qcow2' });
    expect(check).not.toHaveProperty('corruptions');
    expect(check).not.toHaveProperty('leaks');
  });

  test.each([
    ['-o preallocation=off disk.qcow2 1M', 'disk.qcow2 1M'],
    ['-o compat=1.1,refcount_bits=16 -o cluster_size=64k disk.qcow2 1M', '-o compat=v3 disk.qcow2 1024k'],
    ['-o backing_file=base.qcow2,backing_fmt=qcow2 disk.qcow2', '-b base.qcow2 -F qcow2 disk.qcow2'],
  ])('%s is the same as %s', (one, other) => {
    const [{ image: _, ...first }, { image: __, ...second }] = [parsed(one), parsed(other)];
    expect(first).toEqual(second);
  });

  /** Two workers change `disk.qcow2` at random; the model is changed alike. */
  function changeOurs(model: Buffer): void {
    const opened = openImage(at('disk.qcow2'), { readOnly: false });
    const images = [0, 1].map(() => imageFrom(structuredClone(opened.handle)));
    const random = seeded(11);
    for (let done = 0; done < CHANGES; done += 1) {
      for (const image of images) changeAtRandom(image, model, random);
    }
    for (const image of images) image.close();
    opened.close();
  }
});

describe('a qcow2 image is not created', () => {
  test.each([
    ['-o cluster_size=1000 disk.qcow2 1M', '1000 is not a cluster size (a power of two from 512 to 2097152)'],
    ['-o cluster_size=256 disk.qcow2 1M', '256 is not a cluster size'],
    ['-o cluster_size=4M disk.qcow2 1M', '4194304 is not a cluster size'],
    ['-o refcount_bits=3 disk.qcow2 1M', '3 is not a width of refcounts (a power of two from 1 to 64)'],
    ['-o refcount_bits=128 disk.qcow2 1M', '128 is not a width of refcounts'],
    ['-o compat=1.2 disk.qcow2 1M', "'1.2' is not a version of the format (0.10, 1.1, v2, v3)"],
    ['-o compression_type=lzo disk.qcow2 1M', "'lzo' is not a compression type"],
    ['-o compat=0.10,lazy_refcounts=on disk.qcow2 1M', 'lazy refcounts (lazy_refcounts=on) need compat=1.1'],
    ['-o compat=v2,refcount_bits=8 disk.qcow2 1M', 'refcounts of other than 16 bits need compat=1.1'],
    ['-o compat=0.10,extended_l2=on disk.qcow2 1M', 'subclusters (extended_l2=on) need compat=1.1'],
    ['-o compat=0.10,compression_type=zstd disk.qcow2 1M', 'compression types other than zlib need compat=1.1'],
    ['-o compat=0.10,data_file=d.raw disk.qcow2 1M', 'external data files need compat=1.1'],
    ['-o extended_l2=on,cluster_size=8k disk.qcow2 1M', 'need clusters of 16384 bytes at least'],
    ['-o data_file_raw=on disk.qcow2 1M', 'data_file_raw=on needs data_file'],
    ['-o data_file=d.raw,data_file_raw=on -b base.raw -F raw disk.qcow2', 'cannot have a backing file'],
    ['-o preallocation=metadata -b base.raw -F raw disk.qcow2', 'can only be preallocated with subclusters'],
    ['-b base.raw disk.qcow2', 'say what format the backing file has'],
    ['-u -b none.raw disk.qcow2 1M', 'say what format the backing file has'],
    ['-u -b none.raw -F raw disk.qcow2', 'SIZE is missing'],
    ['-F raw disk.qcow2 1M', 'they need --backing'],
    ['-b base.raw -F foo disk.qcow2', "'foo' is not an image format that can be opened"],
    ['disk.qcow2', 'SIZE is missing'],
  ])('with %s, as with qemu-img', (line, why) => {
    const ours = parseTsnbd(['create', '-f', 'qcow2', ...words(line)]);
    expect(ours).toMatchObject({ kind: 'usage-error', message: expect.stringContaining(why) });
  });

  test.each([
    ['-o cluster_size=512 disk.qcow2 200G', 'unsupported', 'larger clusters do'],
    ['-b none.raw -F raw disk.qcow2', 'missing', 'none.raw does not exist'],
    ['-b base.raw -F qcow2 disk.qcow2', 'damaged', 'does not begin like one'],
    ['-b disk.qcow2 -F qcow2 disk.qcow2', 'unsupported', 'cannot be its own backing file'],
    ['-o data_file=./disk.qcow2 disk.qcow2 1M', 'unsupported', 'cannot be its own data file'],
    ['-o data_file=none/d.raw disk.qcow2 1M', 'system', 'none/d.raw: no such file'],
    ['-o data_file=d.raw none/disk.qcow2 1M', 'system', 'none/d.raw: no such file'],
    ['-b nbd://h/x -F raw disk.qcow2', 'unsupported', 'only names of files are opened'],
    [`-u -b ${'n'.repeat(600)} -F raw -o cluster_size=512 disk.qcow2 1M`, 'unsupported', 'no room for such long names'],
    [`-u -b ${'n'.repeat(1_030)} -F raw disk.qcow2 1M`, 'unsupported', 'no room for such long names'],
    ['-o data_file=base.raw -b base.raw -F raw disk.qcow2', 'in-use', 'base.raw is in use'],
    ['base.qcow2 -b middle.qcow2 -F qcow2', 'in-use', 'base.qcow2 is in use'],
  ])('with %s, and nothing is left', async (line, code, why) => {
    makeBases();
    const before = readFileSync(at('base.qcow2'));
    await expect(create(line)).rejects.toMatchObject({ code, message: expect.stringContaining(why) });
    expect(existsSync(at('disk.qcow2'))).toBe(false);
    expect(existsSync(at('d.raw'))).toBe(false);
    expect(readFileSync(at('base.qcow2')).equals(before)).toBe(true);
  });

  test('where a later step fails: neither it nor its data file is there', async () => {
    mkdirSync(at('disk.qcow2'));
    await expect(create('-o data_file=d.raw disk.qcow2 1M')).rejects.toMatchObject({ code: 'system' });
    expect(existsSync(at('d.raw'))).toBe(false);
  });

  test('over one that is in use, and over one that is not, which is emptied first', async () => {
    await create('disk.qcow2 1M');
    const server = await qemuNbd(folder, '', '-t', '-f', 'qcow2', at('disk.qcow2'));
    await succeed('nbdinfo', server.uri); // only then has it opened the image
    const used = await runTsnbd('create', '-f', 'qcow2', at('disk.qcow2'), '2M');
    writeFileSync(at('d.raw'), 'precious');
    const withData = create('-o data_file=d.raw disk.qcow2 2M');
    await expect(withData).rejects.toMatchObject({ code: 'in-use' });
    await server.stop();
    expect(readFileSync(at('d.raw'), 'utf8')).toBe('precious');
    expect(used).toMatchObject({ status: 5, stderr: expect.stringContaining('is in use by qemu-nbd') });
    expect(info('disk.qcow2')).toMatchObject({ 'virtual-size': MIB });
    writeFileSync(at('disk.qcow2'), Buffer.alloc(MIB, 0xee));
    expect(await runTsnbd('create', '-f', 'qcow2', at('disk.qcow2'), '2M')).toMatchObject({
      status: 0,
      stdout: `Formatting '${at('disk.qcow2')}', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=2097152 lazy_refcounts=off refcount_bits=16\n`,
      stderr: '',
    });
    expect(check('disk.qcow2').facts).toMatchObject({ 'check-errors': 0, 'total-clusters': 32 });
    withImage(at('disk.qcow2'), (image) => expect(readAll(image).equals(Buffer.alloc(2 * MIB))).toBe(true));
  });
});
