import { expect, test } from 'vitest';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';

const parseResize = (line: string) => parseTsnbd(['resize', ...line.split(' ').filter((word) => word !== '')]);
const resize = (rest: object = {}) => ({ kind: 'resize', device: 'nbd0', sizeBytes: undefined, force: false, ...rest });

test.each([
  ['/dev/nbd0', resize()],
  ['nbd0 1G', resize({ sizeBytes: 2 ** 30 })],
  ['--force nbd0 512', resize({ sizeBytes: 512, force: true })],
  ['', { kind: 'usage-error', message: 'resizing a device: DEV is missing' }],
  [
    'nbd0 much',
    { kind: 'usage-error', message: "SIZE: 'much' is not a size: a number, behind which k, M, G, T, P or E may stand" },
  ],
  ['nbd0 1 2', { kind: 'usage-error', message: "resizing a device: '2' is one operand too many" }],
])('%s', (line, expected) => {
  expect(parseResize(line)).toEqual(expected);
});

test.each([
  ['-h', 'help'],
  ['--help', 'help'],
  ['-V', 'version'],
  ['--version', 'version'],
])('%s', (line, kind) => {
  expect(parseResize(line).kind).toBe(kind);
});
