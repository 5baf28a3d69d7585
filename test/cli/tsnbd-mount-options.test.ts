import { expect, test } from 'vitest';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';

const parse = (line: string) => parseTsnbd(['mount', ...line.split(' ').filter((word) => word !== '')]);

test.each([
  ['/a.img /mnt -o partition=1 -t ext4', { task: { folder: '/mnt', fileSystem: 'ext4', options: [] } }],
  ['/a.img /mnt --options ro,noatime --types tsnbd.xfs', { task: { fileSystem: 'xfs', options: ['ro', 'noatime'] } }],
  ['/a.img /mnt -s -f -n -v -N /n', { fake: true, task: { isSloppy: true, namespace: '/n' } }],
  ['/a.img /mnt --sloppy --fake --no-mtab --verbose --namespace /n', { fake: true, verbosity: { verbose: true } }],
  ['/a.img /mnt --debug', { verbosity: { debug: true } }],
])('%s', (line, expected) => {
  expect(parse(line)).toMatchObject({ kind: 'mount', ...expected });
});

test('a mistake has the status of mount(8)', () => {
  expect(parse('/a.img')).toEqual({ kind: 'usage-error', message: 'mounting: DIR is missing', status: 1 });
});

test.each([
  ['-h', 'help'],
  ['--help', 'help'],
  ['-V', 'version'],
  ['--version', 'version'],
])('%s', (line, kind) => {
  expect(parse(line).kind).toBe(kind);
});
