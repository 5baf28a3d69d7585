import { expect, test } from 'vitest';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';

const parseLs = (line: string) => parseTsnbd(['ls', ...line.split(' ').filter((word) => word !== '')]);

test.each([
  ['', { kind: 'ls', json: false }],
  [' --json ', { kind: 'ls', json: true }],
  ['nbd0', { kind: 'usage-error', message: "listing devices: 'nbd0' is one operand too many" }],
])('%s', (line, expected) => {
  expect(parseLs(line)).toEqual(expected);
});

test.each([
  ['-h', 'help'],
  ['--help', 'help'],
  ['-V', 'version'],
  ['--version', 'version'],
])('%s', (line, kind) => {
  expect(parseLs(line).kind).toBe(kind);
});
