import { describe, expect, test } from 'vitest';
import { mountStatus } from '#tsnbd/cli/mount-status.js';
import { parseMountTsnbd } from '#tsnbd/cli/mount-tsnbd-options.js';
import { LaunchedError } from '#tsnbd/daemon/launch.js';
import { KernelError } from '#tsnbd/kernel/errors.js';
import { MountError } from '#tsnbd/mount/errors.js';

const words = (line: string) => line.split(' ').filter((word) => word !== '');
const parse = (line: string) => parseMountTsnbd(words(line));

describe('mount.tsnbd', () => {
  test('reads what mount(8) calls it with', () => {
    // In this order, util-linux 2.38 and 2.41.
    const line =
      'nbd://192.0.2.7:4000/ /mnt/test1 -s -f -n -v -o rw,_netdev,partition=1,noatime -t tsnbd.ext4 -N /proc/7/fd/4';
    expect(parse(line)).toMatchObject({
      kind: 'mount',
      fake: true,
      remount: false,
      nofail: false,
      verbosity: { verbose: true },
      task: {
        folder: '/mnt/test1',
        partition: { kind: 'number', number: 1 },
        fsck: 'no',
        fileSystem: 'ext4',
        readOnly: false,
        options: ['rw', 'noatime'],
        isNetwork: true,
        isSloppy: true,
        namespace: '/proc/7/fd/4',
      },
    });
    expect(parse('/srv/a.img /mnt -sfnv --options ro --types tsnbd')).toMatchObject({
      task: { fileSystem: undefined, readOnly: true, isNetwork: false, isSloppy: true },
    });
    expect(parse('/srv/a.img /mnt -o _netdev -o nofail')).toMatchObject({ nofail: true, task: { isNetwork: true } });
    expect(parse('nbd://h /mnt -o remount,ro')).toMatchObject({ remount: true });
    expect(parse('--fake --sloppy --no-mtab --verbose --namespace /n /a /m')).toMatchObject({
      fake: true,
      task: { isSloppy: true, namespace: '/n' },
    });
    expect(parse('--debug /a /m')).toMatchObject({ verbosity: { debug: true } });
  });

  test.each([
    ['', 'mounting: SPEC is missing'],
    ['/a', 'mounting: DIR is missing'],
    ['/a /m x', "mounting: 'x' is one operand too many"],
    ['/a /m -o partition=x', /^option partition: /],
    ['/a /m -o fstype=xfs -t tsnbd.ext4', 'option fstype: it says xfs, and --types ext4'],
    ['/a /m -t a,b', /'a,b' is not a type of file system/],
  ])('refuses %j', (line, message) => {
    const action = parse(line);
    expect(action.kind).toBe('usage-error');
    expect('message' in action && action.message).toMatch(message);
  });

  test.each([
    ['-h', 'help'],
    ['--help', 'help'],
    ['-V', 'version'],
    ['--version', 'version'],
  ])('%s', (line, kind) => {
    expect(parse(line).kind).toBe(kind);
  });
});

test.each([
  [new MountError('usage', 'x'), 1],
  [new KernelError('not-root', 'x'), 1],
  [new MountError('system', 'x'), 2],
  [new KernelError('no-module', 'x'), 2],
  [new LaunchedError('no-device', 'x'), 2],
  [Object.assign(new Error('x'), { code: 'EROFS' }), 2],
  [new Error('a fault'), 4],
  ['x', 4],
  [new MountError('interrupted', 'x'), 8],
  [new LaunchedError('interrupted', 'x'), 8],
  [new MountError('failed', 'x'), 32],
  [new MountError('unreachable', 'x'), 32],
  [new LaunchedError('busy', 'x'), 32],
  [new LaunchedError('unknown-export', 'x'), 32],
])('the status of %o is %i', (error, status) => {
  expect(mountStatus(error)).toBe(status);
});
