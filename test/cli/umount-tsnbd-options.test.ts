import { expect, test } from 'vitest';
import { parseUmountTsnbd } from '#tsnbd/cli/umount-tsnbd-options.js';

const parse = (line: string) => parseUmountTsnbd(line.split(' ').filter((word) => word !== ''));
const plain = { folder: '/mnt', lazy: false, force: false, readOnly: false, namespace: undefined };

test.each([
  ['/mnt', plain],
  // In this order, util-linux 2.38 and 2.41.
  [
    '/mnt -n -l -f -v -r -t ext4 -N /proc/7/fd/4',
    { folder: '/mnt', lazy: true, force: true, readOnly: true, namespace: '/proc/7/fd/4' },
  ],
  ['--lazy /mnt', { ...plain, lazy: true }],
  ['--force --no-mtab /mnt', { ...plain, force: true }],
  ['--read-only --types tsnbd --verbose --debug /mnt', { ...plain, readOnly: true }],
  ['--namespace /n /mnt', { ...plain, namespace: '/n' }],
])('%s', (line, unmount) => {
  expect(parse(line)).toMatchObject({ kind: 'umount', unmount });
});

test.each([
  ['', 'unmounting: DIR is missing'],
  ['/a /b', "unmounting: '/b' is one operand too many"],
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
