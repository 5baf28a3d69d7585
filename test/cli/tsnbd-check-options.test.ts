import { describe, expect, test } from 'vitest';
import { checkAsText } from '#tsnbd/cli/check-report.js';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';

const parseCheck = (line: string) => parseTsnbd(['check', ...line.split(' ').filter((word) => word !== '')]);

const check = (options: object = {}, rest: object = {}) => ({
  kind: 'check',
  path: 'disk.qcow2',
  options: { repair: undefined, format: undefined, forceShare: false, ...options },
  json: false,
  ...rest,
});

test.each([
  ['disk.qcow2', check()],
  ['-r leaks disk.qcow2', check({ repair: 'leaks' })],
  ['disk.qcow2 --repair=all', check({ repair: 'all' })],
  ['--json disk.qcow2', check({}, { json: true })],
  ['-f qcow2 -U disk.qcow2', check({ format: 'qcow2', forceShare: true })],
  ['--format=raw --force-share disk.qcow2', check({ format: 'raw', forceShare: true })],
])('%s', (line, expected) => {
  expect(parseCheck(line)).toEqual(expected);
});

describe('tsnbd check refuses, and says why: not with 2, which would mean errors', () => {
  test.each([
    ['', 'checking an image: FILE is missing'],
    ['a b', "checking an image: 'b' is one operand too many"],
    ['-r some a', "option --repair: 'some' is not what can be repaired (leaks, all)"],
    ['-r all -U a', 'options --repair and --force-share: only one of them at a time'],
    ['-v a', "unknown option '-v'"],
  ])('%s', (line, message) => {
    expect(parseCheck(line)).toEqual({ kind: 'usage-error', message, status: 1 });
  });
});

test.each([
  ['-h', 'help'],
  ['--help', 'help'],
  ['-V', 'version'],
  ['--version', 'version'],
])('%s', (line, kind) => {
  expect(parseCheck(line)).toMatchObject({ kind, text: expect.stringMatching(/^tsnbd /) });
});

test('what could not be looked at is told', () => {
  const clusters = { totalClusters: 0, allocatedClusters: 0, compressedClusters: 0, fragmentedClusters: 0 };
  const counts = { corruptions: 1, leaks: 0, checkErrors: 2, corruptionsFixed: 0, leaksFixed: 0, imageEndBytes: 512 };
  expect(checkAsText({ ...clusters, ...counts })).toBe(
    '\n1 errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n\n2 internal errors have occurred during the check.\nImage end offset: 512\n',
  );
});
