import { describe, expect, test } from 'vitest';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';

const parseCreate = (line: string) => parseTsnbd(['create', ...line.split(' ').filter((word) => word !== '')]);
const create = (rest: object = {}) => ({
  kind: 'create',
  path: 'disk.raw',
  sizeBytes: 1_048_576,
  image: { format: 'raw', settings: {} },
  form: { format: 'raw', preallocation: 'off' },
  quiet: false,
  ...rest,
});
const raw = (preallocation: string) =>
  create({ image: { format: 'raw', settings: { preallocation } }, form: { format: 'raw', preallocation } });
const qcow2 = (settings: object, form: object = {}, rest: object = {}) => {
  const { isUnsafe = false, ...others } = rest as { isUnsafe?: boolean };
  const defaults = { version: 3, clusterBytes: 65_536, refcountBits: 16, extendedL2: false, lazyRefcounts: false };
  const more = { compression: 'zlib', preallocation: 'off', dataFile: undefined, backing: undefined };
  return create({
    image: { format: 'qcow2', settings, isUnsafe },
    form: { format: 'qcow2', ...defaults, ...more, ...form },
    ...others,
  });
};

describe('tsnbd create makes an image', () => {
  test.each([
    ['disk.raw 1M', create()],
    ['disk.raw 1048576', create()],
    ['-f raw disk.raw 1M', create()],
    ['--format=raw disk.raw 1m', create()],
    ['disk.raw 1M -q', create({ quiet: true })],
    ['--quiet disk.raw 1024k', create({ quiet: true })],
    ['-o preallocation=full disk.raw 1M', raw('full')],
    ['--options preallocation=falloc disk.raw 1M', raw('falloc')],
    ['--options=preallocation=off disk.raw 1M', raw('off')],
    ['-o preallocation=off,preallocation=full disk.raw 1M', raw('full')],
    ['-o preallocation=full -o preallocation=off disk.raw 1M', raw('off')],
    ['./a/disk.raw 0', create({ path: './a/disk.raw', sizeBytes: 0 })],
    ['-f qcow2 disk.raw 1M', qcow2({})],
    [
      '-f qcow2 -o compat=0.10,cluster_size=4k,preallocation=falloc disk.raw 1M',
      qcow2(
        { compat: '0.10', cluster_size: 4_096, preallocation: 'falloc' },
        { version: 2, clusterBytes: 4_096, preallocation: 'falloc' },
      ),
    ],
    [
      '-f qcow2 -o extended_l2=on,lazy_refcounts=on -o refcount_bits=64,compression_type=zstd,compat=v3 disk.raw 1M',
      qcow2(
        { extended_l2: 'on', lazy_refcounts: 'on', refcount_bits: 64, compression_type: 'zstd', compat: 'v3' },
        { extendedL2: true, lazyRefcounts: true, refcountBits: 64, compression: 'zstd' },
      ),
    ],
    [
      '-f qcow2 -o data_file=d.raw,data_file_raw=on disk.raw 1M',
      qcow2({ data_file: 'd.raw', data_file_raw: 'on' }, { dataFile: { name: 'd.raw', isRaw: true } }),
    ],
    [
      '-f qcow2 -b base -F raw disk.raw',
      qcow2(
        { backing_file: 'base', backing_fmt: 'raw' },
        { backing: { name: 'base', format: 'raw', isLookedAt: true } },
        { sizeBytes: undefined },
      ),
    ],
    [
      '-f qcow2 --backing-unsafe --backing=a,b --backing-format=qcow2 disk.raw 1M',
      qcow2(
        { backing_file: 'a,b', backing_fmt: 'qcow2' },
        { backing: { name: 'a,b', format: 'qcow2', isLookedAt: false } },
        { isUnsafe: true },
      ),
    ],
    ['-- -q 10G', create({ path: '-q', sizeBytes: 10_737_418_240 })],
  ])('%s', (line, expected) => {
    expect(parseCreate(line)).toEqual(expected);
  });
});

describe('tsnbd create refuses, and says why', () => {
  const notSize = (text: string) =>
    `SIZE: '${text}' is not a size: a number, behind which k, M, G, T, P or E may stand`;

  test.each([
    ['', 'creating an image: FILE is missing'],
    ['disk.raw', 'creating an image: SIZE is missing'],
    ['disk.raw 1M x', "creating an image: 'x' is one operand too many"],
    ['disk.raw 1x', notSize('1x')],
    ['-f qcow disk.raw 1M', "option --format: 'qcow' is not a format that images can be created in (raw, qcow2)"],
    ['-o cluster_size=65536 disk.raw 1M', "option --options: raw images have no 'cluster_size', only preallocation"],
    ['-o toString=1 disk.raw 1M', "option --options: raw images have no 'toString', only preallocation"],
    [
      '-o preallocation=metadata disk.raw 1M',
      "option --options: preallocation: 'metadata' is not a preallocation (off, falloc, full)",
    ],
    ['-o preallocation disk.raw 1M', "option --options: 'preallocation' is not NAME=VALUE"],
    ['-o =x disk.raw 1M', "option --options: '=x' is not NAME=VALUE"],
    ['-o preallocation=off, disk.raw 1M', "option --options: '' is not NAME=VALUE"],
    [
      '-o preallocation=a,,b disk.raw 1M',
      "option --options: preallocation: 'a,b' is not a preallocation (off, falloc, full)",
    ],
    ['-b base.raw -F raw disk.raw 1M', 'option --backing: raw images have no backing file'],
    ['-u disk.raw 1M', 'option --backing: raw images have no backing file'],
    ['-f qcow2 -u disk.raw 1M', 'options --backing-format and --backing-unsafe: they need --backing'],
    [
      '-f qcow2 -b base.raw disk.raw 1M',
      'option --backing: say what format the backing file has, -F raw or -F qcow2; "tsnbd info" tells what it looks like',
    ],
    ['-f qcow2 -u -b base.raw -F raw disk.raw', 'creating an image: SIZE is missing'],
    ['-f qcow2 -o lazy_refcounts=yes disk.raw 1M', "option --options: lazy_refcounts: 'yes' is not a switch (on, off)"],
    [
      '-f qcow2 -o cluster_size=3k disk.raw 1M',
      'option --options: cluster_size: 3072 is not a cluster size (a power of two from 512 to 2097152)',
    ],
    [
      '-f qcow2 -o compat=0.10,extended_l2=on disk.raw 1M',
      'option --options: subclusters (extended_l2=on) need compat=1.1',
    ],
  ])('%s', (line, message) => {
    expect(parseCreate(line)).toEqual({ kind: 'usage-error', message });
  });
});

test.each([
  ['-h', 'help'],
  ['--help', 'help'],
  ['-V', 'version'],
  ['--version', 'version'],
])('%s', (line, kind) => {
  expect(parseCreate(line)).toMatchObject({ kind, text: expect.stringMatching(/^tsnbd /) });
});
