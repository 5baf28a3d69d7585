import { expect, test } from 'vitest';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';

const parse = (line: string) => parseTsnbd(['umount', ...line.split(' ').filter((word) => word !== '')]);

test.each([
  ['/mnt', { lazy: false, force: false, readOnly: false }],
  ['/mnt -l -f -r -n -v -t x -N /n', { lazy: true, force: true, readOnly: true, namespace: '/n' }],
  ['/mnt --lazy --force --read-only --no-mtab --verbose --types x --namespace /n', { lazy: true, force: true }],
  ['/mnt --debug', { folder: '/mnt' }],
])('%s', (line, unmount) => {
  expect(parse(line)).toMatchObject({ kind: 'umount', unmount });
});

test('a mistake has the status of umount(8)', () => {
  expect(parse('')).toEqual({ kind: 'usage-error', message: 'unmounting: DIR is missing', status: 1 });
});

test.each([
  ['-h', 'help'],
  ['--help', 'help'],
  ['-V', 'version'],
  ['--version', 'version'],
])('%s', (line, kind) => {
  expect(parse(line).kind).toBe(kind);
});
