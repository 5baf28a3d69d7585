import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { imagesAsJson, imagesAsText } from '#tsnbd/cli/image-report.js';
import { describeChain, describeImage } from '#tsnbd/image/describe-image.js';
import { openImage } from '#tsnbd/image/open-image.js';
import { qcow2Bytes } from '../image/qcow2/qcow2-bytes.js';
import { qemuNbd } from './peers.js';
import { runTsnbd, succeed } from './served.js';

let folder: string;
const qemuImg = (...args: string[]) => execFileSync('qemu-img', args, { cwd: folder, encoding: 'utf8' });
const create = (...args: string[]) => qemuImg('create', '-q', '-f', 'qcow2', ...args);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-qcow2-info-'));
  mkdirSync(join(folder, 'below'));
  create('below/base.qcow2', '7M');
  create('-b', 'base.qcow2', '-F', 'qcow2', 'below/middle.qcow2', '9M');
  create('-o', 'lazy_refcounts=on', '-b', 'below/middle.qcow2', '-F', 'qcow2', 'rich.qcow2', '20M');
  execFileSync('qemu-io', ['-c', 'write 0 1M', 'rich.qcow2'], { cwd: folder });
  for (const name of ['one', 'a name that is longer than its column']) qemuImg('snapshot', '-c', name, 'rich.qcow2');
  qemuImg('bitmap', '--add', 'rich.qcow2', 'first');
  qemuImg('bitmap', '--add', '--disable', '-g', '128k', 'rich.qcow2', 'second');
  create('-o', 'compat=0.10', 'old.qcow2', '1M');
  create('-o', 'data_file=data.raw,data_file_raw=on,extended_l2=on', 'data.qcow2', '3G');
  create('-u', '-b', join(folder, 'none.raw'), '-F', 'raw', 'lonely.qcow2', '1M');
  create('-o', 'lazy_refcounts=on,compression_type=zstd', 'marked.qcow2', '1M');
  const bytes = readFileSync(join(folder, 'marked.qcow2'));
  bytes.writeUInt8(bytes.readUInt8(79) | 3, 79);
  writeFileSync(join(folder, 'marked.qcow2'), bytes);
});
afterAll(() => rmSync(folder, { recursive: true }));

/** As if both had been started in the folder. */
const inFolder = <T>(act: () => T): T => {
  const before = process.cwd();
  process.chdir(folder);
  try {
    return act();
  } finally {
    process.chdir(before);
  }
};

describe('a qcow2 image is described as qemu-img does:', () => {
  test.each(['rich', 'below/middle', 'old', 'data', 'lonely', 'marked'])('%s', (name) => {
    const path = `${name}.qcow2`;
    const image = inFolder(() => describeImage(path, {}));
    expect(imagesAsText([image])).toBe(qemuImg('info', path));
    expect(JSON.parse(imagesAsJson([image], false))).toEqual(JSON.parse(qemuImg('info', '--output=json', path)));
  });

  test('and so is what is behind it', () => {
    const images = inFolder(() => describeChain('rich.qcow2', {}));
    expect(imagesAsText(images)).toBe(qemuImg('info', '--backing-chain', 'rich.qcow2'));
    const theirs = JSON.parse(qemuImg('info', '--backing-chain', '--output=json', 'rich.qcow2'));
    expect(JSON.parse(imagesAsJson(images, true))).toEqual(theirs);
    expect(theirs).toHaveLength(3);
  });

  test('and so is one on a file of 0 bytes, by whoever it was made', async () => {
    const base = join(folder, 'nothing.raw');
    writeFileSync(base, '');
    create('-F', 'raw', '-b', 'nothing.raw', 'theirs.qcow2', '1M');
    const path = join(folder, 'ours.qcow2');
    expect((await runTsnbd('create', '-f', 'qcow2', '-F', 'raw', '-b', base, path, '1M')).stderr).toBe('');
    for (const name of ['theirs.qcow2', 'ours.qcow2']) {
      const images = inFolder(() => describeChain(name, {}));
      expect(imagesAsText(images)).toBe(qemuImg('info', '--backing-chain', name));
    }
  });
});

test.each([1000, 512, 1023, 511])(
  'the size of a disk that ends in a sector, at %i bytes, is that of the others',
  (sizeBytes) => {
    create('odd.qcow2', '1M');
    const path = join(folder, 'odd.qcow2');
    const bytes = readFileSync(path);
    bytes.writeBigUInt64BE(BigInt(sizeBytes), 24);
    writeFileSync(path, bytes);
    const image = inFolder(() => describeImage('odd.qcow2', {}));
    expect(imagesAsText([image])).toBe(qemuImg('info', 'odd.qcow2'));
    const opened = openImage(path, { readOnly: true });
    opened.close();
    expect(opened.sizeBytes).toBe(Number(JSON.parse(qemuImg('info', '--output=json', 'odd.qcow2'))['virtual-size']));
  },
);

describe('what is behind an image is not described', () => {
  test.each([
    ['is not there', ['-F', 'raw', '-b', 'none.raw'], 'missing', 'none.raw does not exist'],
    ['is the image itself', ['-F', 'qcow2', '-b', './chain.qcow2'], 'damaged', 'is a part of itself'],
    ['is no file', ['-F', 'raw', '-b', 'nbd://h/x'], 'unsupported', 'only names of files are opened'],
  ])('if it %s', (_, args, code, message) => {
    create('-u', ...args, 'chain.qcow2', '1M');
    const chain = () => inFolder(() => describeChain('chain.qcow2', {}));
    expect(chain).toThrow(expect.objectContaining({ code, message: expect.stringContaining(message) }));
  });

  test('if the image does not say what it is', () => {
    const { bytes } = qcow2Bytes({ sizeBytes: 1_048_576, backing: 'old.qcow2' });
    writeFileSync(join(folder, 'chain.qcow2'), bytes);
    expect(inFolder(() => describeImage('chain.qcow2', {}).backing)).toMatchObject({ format: undefined });
    expect(() => inFolder(() => describeChain('chain.qcow2', {}))).toThrow('to guess is not safe');
  });
});

test('an image that another program writes to is described only with -U', async () => {
  const path = join(folder, 'old.qcow2');
  const server = await qemuNbd(folder, '', '-t', '-f', 'qcow2', path);
  await succeed('nbdinfo', server.uri); // only then has it opened the image
  const refused = await runTsnbd('info', path);
  const forced = await runTsnbd('info', '-U', '--backing-chain', path);
  const maps = [await runTsnbd('map', path), await runTsnbd('map', '-U', path)];
  await server.stop();
  expect(refused).toMatchObject({ status: 5, stderr: expect.stringContaining('is in use by qemu-nbd') });
  expect(maps.map(({ status }) => status)).toEqual([5, 0]);
  expect(forced).toEqual({ status: 0, stdout: qemuImg('info', path), stderr: '' });
});
