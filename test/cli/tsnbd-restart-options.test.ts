import { expect, test } from 'vitest';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';

const parseRestart = (line: string) => parseTsnbd(['restart', ...line.split(' ').filter((word) => word !== '')]);

test.each([
  ['/dev/nbd0', { kind: 'restart', device: 'nbd0' }],
  ['', { kind: 'usage-error', message: 'restarting a process: DEV is missing' }],
  ['nbd0 nbd1', { kind: 'usage-error', message: "restarting a process: 'nbd1' is one operand too many" }],
])('%s', (line, expected) => {
  expect(parseRestart(line)).toEqual(expected);
});

test.each([
  ['-h', 'help'],
  ['--help', 'help'],
  ['-V', 'version'],
  ['--version', 'version'],
])('%s', (line, kind) => {
  expect(parseRestart(line).kind).toBe(kind);
});
