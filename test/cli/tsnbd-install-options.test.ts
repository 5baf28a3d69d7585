import { expect, test } from 'vitest';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';

const parse = (line: string) => parseTsnbd(['install', ...line.split(' ').filter((word) => word !== '')]);

test.each([
  ['', { kind: 'install', root: '', uninstall: false, dryRun: false }],
  ['--prefix /x --dry-run', { kind: 'install', root: '/x', uninstall: false, dryRun: true }],
  [' --uninstall ', { kind: 'install', root: '', uninstall: true, dryRun: false }],
  ['x', { kind: 'usage-error', message: "installing: 'x' is one operand too many" }],
])('%j', (line, expected) => {
  expect(parse(line)).toEqual(expected);
});

test.each([
  ['-h', 'help'],
  ['--help', 'help'],
  ['-V', 'version'],
  ['--version', 'version'],
])('%s', (line, kind) => {
  expect(parse(line).kind).toBe(kind);
});
