import { expect, test } from 'vitest';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';

const parseStatus = (line: string) => parseTsnbd(['status', ...line.split(' ').filter((word) => word !== '')]);

test.each([
  ['/dev/nbd0', { kind: 'status', device: 'nbd0', json: false }],
  ['nbd12 --json ', { kind: 'status', device: 'nbd12', json: true }],
  ['', { kind: 'usage-error', message: 'telling of a device: DEV is missing' }],
  ['nbd0 nbd1', { kind: 'usage-error', message: "telling of a device: 'nbd1' is one operand too many" }],
])('%s', (line, expected) => {
  expect(parseStatus(line)).toEqual(expected);
});

test.each([
  ['-h', 'help'],
  ['--help', 'help'],
  ['-V', 'version'],
  ['--version', 'version'],
])('%s', (line, kind) => {
  expect(parseStatus(line).kind).toBe(kind);
});
