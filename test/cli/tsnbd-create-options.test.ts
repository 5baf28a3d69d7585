import { describe, expect, test } from 'vitest';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';

const parseCreate = (line: string) => parseTsnbd(['create', ...line.split(' ').filter((word) => word !== '')]);
const create = (rest: object = {}) => ({
  kind: 'create',
  path: 'disk.raw',
  sizeBytes: 1_048_576,
  format: 'raw',
  settings: {},
  quiet: false,
  ...rest,
});

describe('tsnbd create makes an image', () => {
  test.each([
    ['disk.raw 1M', create()],
    ['disk.raw 1048576', create()],
    ['-f raw disk.raw 1M', create()],
    ['--format=raw disk.raw 1m', create()],
    ['disk.raw 1M -q', create({ quiet: true })],
    ['--quiet disk.raw 1024k', create({ quiet: true })],
    ['-o preallocation=full disk.raw 1M', create({ settings: { preallocation: 'full' } })],
    ['--options preallocation=falloc disk.raw 1M', create({ settings: { preallocation: 'falloc' } })],
    ['--options=preallocation=off disk.raw 1M', create({ settings: { preallocation: 'off' } })],
    ['-o preallocation=off,preallocation=full disk.raw 1M', create({ settings: { preallocation: 'full' } })],
    ['-o preallocation=full -o preallocation=off disk.raw 1M', create({ settings: { preallocation: 'off' } })],
    ['./a/disk.raw 0', create({ path: './a/disk.raw', sizeBytes: 0 })],
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
    ['-f qcow disk.raw 1M', "option --format: 'qcow' is not a format that images can be created in (raw)"],
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
    ['-b base.raw disk.raw', "unknown option '-b'"],
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
