import { expect, test } from 'vitest';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';

const parse = (line: string) => parseTsnbd(['fstab', ...line.split(' ').filter((word) => word !== '')]);
const added = {
  kind: 'fstab',
  what: 'add',
  spec: '/a.img',
  folder: '/mnt',
  options: '',
  file: '/etc/fstab',
  dryRun: false,
};

test.each([
  ['add /a.img /mnt', added],
  ['add /a.img /mnt -o ro -o noatime,partition=1', { ...added, options: 'ro,noatime,partition=1' }],
  ['add /a.img /mnt --options ro --dry-run --fstab /f', { ...added, options: 'ro', dryRun: true, file: '/f' }],
  ['check', { kind: 'fstab', what: 'check', file: '/etc/fstab' }],
  ['check --fstab /f', { kind: 'fstab', what: 'check', file: '/f' }],
])('%s', (line, expected) => {
  expect(parse(line)).toEqual(expected);
});

test.each([
  ['', 'writing or checking fstab: COMMAND is missing'],
  ['list', "COMMAND: 'list' is not what can be done with fstab (add, check)"],
  ['add /a.img', 'writing or checking fstab: DIR is missing'],
  ['check -o ro', 'option --options: it is for add, and has no effect for check'],
  ['check x', "writing or checking fstab: 'x' is one operand too many"],
])('%j is refused', (line, message) => {
  expect(parse(line)).toEqual({ kind: 'usage-error', message });
});

test.each([
  ['-h', 'help'],
  ['--help', 'help'],
  ['-V', 'version'],
  ['--version', 'version'],
])('%s', (line, kind) => {
  expect(parse(line).kind).toBe(kind);
});
