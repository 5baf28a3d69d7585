import { resolve } from 'node:path';
import { expect, test } from 'vitest';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';

const parseRun = (line: string) => parseTsnbd(['run', ...line.split(' ').filter((word) => word !== '')]);

const run = (request: object = {}, command = ['ls'], verbose = false) => ({
  kind: 'run',
  request: {
    kind: 'image',
    imagePath: resolve('disk.raw'),
    format: undefined,
    readOnly: false,
    snapshot: undefined,
    temporary: false,
    forceShare: false,
    cache: undefined,
    discard: undefined,
    detectZeroes: undefined,
    device: undefined,
    kernelApi: 'auto',
    locksMemory: false,
    persist: false,
    deadTimeoutSeconds: undefined,
    ...request,
  },
  command,
  verbosity: { verbose, debug: false },
});

const remote = {
  kind: 'run',
  request: {
    kind: 'remote',
    address: { kind: 'tcp', host: 'host', port: 10809 },
    exportName: 'disk',
    device: undefined,
    kernelApi: 'auto',
    locksMemory: false,
    blockSizeBytes: undefined,
    requestTimeoutSeconds: 0,
    connections: 1,
    persist: 'where-possible',
    deadTimeoutSeconds: 300,
    retryLimitSeconds: undefined,
    unattended: false,
  },
  command: ['ls'],
  verbosity: { verbose: false, debug: false },
};

test.each([
  ['disk.raw -- ls', run()],
  ['-f raw disk.raw -- ls -l --all -- -c', run({ format: 'raw' }, ['ls', '-l', '--all', '--', '-c'])],
  ['--format=raw disk.raw -r -- ls', run({ format: 'raw', readOnly: true })],
  ['--read-only disk.raw -- ls', run({ readOnly: true })],
  ['-s disk.raw -- ls', run({ temporary: true })],
  ['--snapshot --load-snapshot one disk.raw -- ls', run({ temporary: true, snapshot: { idOrName: 'one' } })],
  ['-l one disk.raw -- ls', run({ readOnly: true, snapshot: { idOrName: 'one' } })],
  ['-r -U disk.raw -- ls', run({ readOnly: true, forceShare: true })],
  ['-r --force-share disk.raw -- ls', run({ readOnly: true, forceShare: true })],
  ['-n disk.raw -- ls', run({ cache: 'none' })],
  ['--nocache disk.raw -- ls', run({ cache: 'none' })],
  ['--cache=unsafe disk.raw -- ls', run({ cache: 'unsafe' })],
  ['-o 512 disk.raw -- ls', run({ part: { kind: 'offset', offsetBytes: 512 } })],
  ['--offset 512 disk.raw -- ls', run({ part: { kind: 'offset', offsetBytes: 512 } })],
  ['--partition=1 disk.raw -- ls', run({ part: { kind: 'partition', number: 1 } })],
  ['--discard=off --detect-zeroes=on disk.raw -- ls', run({ discard: 'ignore', detectZeroes: 'on' })],
  ['-c nbd3 disk.raw -- ls', run({ device: 'nbd3' })],
  ['--connect=/dev/nbd3 --kernel-api=ioctl disk.raw -- ls', run({ device: 'nbd3', kernelApi: 'ioctl' })],
  ['-v disk.raw -- ls', run({}, ['ls'], true)],
  ['-i disk1 disk.raw -- ls', run({ identifier: 'disk1' })],
  ['--identifier=a:b disk.raw -- ls', run({ identifier: 'a:b' })],
  ['--destroy-on-disconnect disk.raw -- ls', run({ destroyOnDisconnect: true })],
  ['--disconnect-on-close disk.raw -- ls', run({ disconnectOnClose: 'once told' })],
  ['--verbose disk.raw -- ls', run({}, ['ls'], true)],
  ['nbd://host/disk -- ls', remote],
  ['--debug nbd://host/disk -- ls', { ...remote, verbosity: { verbose: true, debug: true } }],
])('%s', (line, expected) => {
  expect(parseRun(line)).toEqual(expected);
});

test.each([
  ['disk.raw', 'COMMAND: it is missing; it stands behind --'],
  ['disk.raw --', 'COMMAND: it is missing; it stands behind --'],
  ['disk.raw ls', "running a command: 'ls' is one operand too many"],
  ['-- ls', 'running a command: IMAGE is missing'],
  ['-f raw nbd://host/disk -- ls', 'option --format: it is for images, not for a URI'],
  ['--kernel-api=ioctl -c nbd0 -i a disk.raw -- ls', 'option --identifier: it has no effect by ioctl'],
  [
    '-i tsnbd:1 disk.raw -- ls',
    "option --identifier: 'tsnbd:1' is not an identifier (printable ASCII, no blanks around it, and not a mark of tsnbd)",
  ],
  [`-i ${'x'.repeat(256)} disk.raw -- ls`, 'option --identifier: the identifier has 256 bytes, 255 are allowed'],
  [
    '--kernel-api=ioctl disk.raw -- ls',
    'DEV: with ioctl the kernel does not choose a device; name one instead of auto',
  ],
])('refused: %s', (line, message) => {
  expect(parseRun(line)).toEqual({ kind: 'usage-error', message });
});

test.each([
  ['-h', 'help'],
  ['--help', 'help'],
  ['-V', 'version'],
  ['--version', 'version'],
])('%s', (line, kind) => {
  expect(parseRun(line).kind).toBe(kind);
});
