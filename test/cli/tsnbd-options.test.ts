import { resolve } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseTsnbd, type TsnbdAction, tsnbdProgram } from '#tsnbd/cli/tsnbd-options.js';

const QUIET = { verbose: false, debug: false };
const words = (line: string) => line.split(' ').filter((word) => word !== '');

describe('tsnbd attaches an image', () => {
  const attach = (request: object = {}, rest: object = {}) => ({
    kind: 'attach',
    request: {
      kind: 'image',
      imagePath: resolve('disk.raw'),
      format: undefined,
      readOnly: false,
      device: 'nbd0',
      ...request,
    },
    foreground: false,
    verbosity: QUIET,
    ...rest,
  });

  test.each([
    ['-c /dev/nbd0 disk.raw', attach()],
    ['-c nbd0 disk.raw', attach()],
    ['-c/dev/nbd0 disk.raw', attach()],
    ['--connect=/dev/nbd0 disk.raw', attach()],
    ['--connect /dev/nbd0 disk.raw', attach()],
    ['disk.raw -c /dev/nbd0', attach()],
    ['--conn nbd0 disk.raw', attach()],
    ['-c /dev/nbd12 disk.raw', attach({ device: 'nbd12' })],
    ['-c /dev/nbd0 -f raw disk.raw', attach({ format: 'raw' })],
    ['-c /dev/nbd0 disk.raw -f raw', attach({ format: 'raw' })],
    ['--format=raw -c /dev/nbd0 disk.raw', attach({ format: 'raw' })],
    ['-r -c /dev/nbd0 disk.raw', attach({ readOnly: true })],
    ['-rc /dev/nbd0 disk.raw', attach({ readOnly: true })],
    ['-rc/dev/nbd0 disk.raw', attach({ readOnly: true })],
    ['--read-only -c /dev/nbd0 disk.raw', attach({ readOnly: true })],
    ['-c /dev/nbd0 /var/disk.raw', attach({ imagePath: '/var/disk.raw' })],
    ['-c /dev/nbd0 -- -odd.raw', attach({ imagePath: resolve('-odd.raw') })],
    ['-c /dev/nbd0 --nofork disk.raw', attach({}, { foreground: true })],
    ['-c /dev/nbd0 -v disk.raw', attach({}, { verbosity: { verbose: true, debug: false } })],
    ['-c /dev/nbd0 --verbose disk.raw', attach({}, { verbosity: { verbose: true, debug: false } })],
    ['-c /dev/nbd0 --debug disk.raw', attach({}, { verbosity: { verbose: true, debug: true } })],
  ])('%s', (line, expected) => {
    expect(parseTsnbd(words(line))).toEqual(expected);
  });
});

describe('tsnbd detaches a device', () => {
  const detach = (rest: object = {}) => ({ kind: 'detach', device: 'nbd0', force: false, ...rest });

  test.each([
    ['-d /dev/nbd0', detach()],
    ['-d nbd0', detach()],
    ['-d/dev/nbd0', detach()],
    ['--disconnect /dev/nbd0', detach()],
    ['--disconnect=/dev/nbd0', detach()],
    ['/dev/nbd0 -d', detach()],
    ['-d -- /dev/nbd0', detach()],
    ['-d --force /dev/nbd0', detach({ force: true })],
    ['-d /dev/nbd0 --force', detach({ force: true })],
    ['--force -d /dev/nbd3', detach({ device: 'nbd3', force: true })],
  ])('%s', (line, expected) => {
    expect(parseTsnbd(words(line))).toEqual(expected);
  });
});

describe('tsnbd serves an image', () => {
  const tcp = (host: string, port: number) => ({ kind: 'tcp', host, port });
  const serve = (rest: object = {}) => ({
    kind: 'serve',
    address: tcp('127.0.0.1', 10809),
    imagePath: resolve('disk.raw'),
    format: undefined,
    readOnly: false,
    clientsMax: 1,
    persistent: false,
    verbosity: QUIET,
    ...rest,
  });

  test.each([
    ['disk.raw', serve()],
    ['--bind=127.0.0.1 --port=4000 -f raw disk.raw', serve({ address: tcp('127.0.0.1', 4000), format: 'raw' })],
    ['-b ::1 -p 1 disk.raw', serve({ address: tcp('::1', 1) })],
    ['-p65535 disk.raw', serve({ address: tcp('127.0.0.1', 65535) })],
    ['-k /run/disk.sock disk.raw', serve({ address: { kind: 'unix', path: '/run/disk.sock' } })],
    ['--socket=disk.sock disk.raw', serve({ address: { kind: 'unix', path: resolve('disk.sock') } })],
    ['-e 0 disk.raw', serve({ clientsMax: undefined })],
    ['--shared=5 disk.raw', serve({ clientsMax: 5 })],
    ['-t disk.raw', serve({ persistent: true })],
    ['--persistent disk.raw', serve({ persistent: true })],
    [
      '-rtve2 disk.raw',
      serve({ readOnly: true, persistent: true, clientsMax: 2, verbosity: { verbose: true, debug: false } }),
    ],
    ['-p 4000 -p 4001 disk.raw', serve({ address: tcp('127.0.0.1', 4001) })],
  ])('%s', (line, expected) => {
    expect(parseTsnbd(words(line))).toEqual(expected);
  });
});

describe('tsnbd refuses, and says why', () => {
  test.each([
    ['', 'serving an image: IMAGE is missing'],
    ['-c /dev/nbd0', 'attaching an image: IMAGE is missing'],
    ['-d', 'detaching a device: DEV is missing'],
    ['a.raw b.raw', "serving an image: 'b.raw' is one operand too many"],
    ['-c nbd0 a.raw b.raw', "attaching an image: 'b.raw' is one operand too many"],
    ['-d nbd0 nbd1', "detaching a device: 'nbd1' is one operand too many"],
    ['-c', 'option -c: DEV is missing'],
    ['disk.raw --port', 'option --port: PORT is missing'],
    ['disk.raw -vp', 'option -vp: PORT is missing'],
    ['-c /dev/sda disk.raw', /^option --connect: '\/dev\/sda' is no nbd device/],
    ['-c /dev/nbd0p1 disk.raw', /^option --connect: .*partition/],
    ['-d disk', /^option --disconnect: 'disk' is no nbd device/],
    ['-d -- disk', /^DEV: 'disk' is no nbd device/],
    ['-c nbd0 -c nbd1 disk.raw', 'option --connect: given twice'],
    ['-d nbd0 -d nbd1', 'option --disconnect: given twice'],
    ['-c nbd0 -d nbd0', 'options --connect and --disconnect: only one of them at a time'],
    ['-f qcow2 disk.qcow2', "option --format: the image format 'qcow2' is not supported, only 'raw' is"],
    ['-p 99999 disk.raw', "option --port: '99999' is not a port (1 to 65535)"],
    ['-p 65536 disk.raw', "option --port: '65536' is not a port (1 to 65535)"],
    ['-p 0 disk.raw', "option --port: '0' is not a port (1 to 65535)"],
    ['-p -1 disk.raw', "option --port: '-1' is not a port (1 to 65535)"],
    ['-p 0x10 disk.raw', "option --port: '0x10' is not a port (1 to 65535)"],
    ['-p 4000x disk.raw', "option --port: '4000x' is not a port (1 to 65535)"],
    ['-p 04000 disk.raw', "option --port: '04000' is not a port (1 to 65535)"],
    ['--port= disk.raw', "option --port: '' is not a port (1 to 65535)"],
    ['-e 1e1 disk.raw', "option --shared: '1e1' is not a number of clients (0 to 1024)"],
    ['-e 1025 disk.raw', "option --shared: '1025' is not a number of clients (0 to 1024)"],
    ['--bind= disk.raw', 'option --bind: an empty text is not a host'],
    ['--socket= disk.raw', 'option --socket: an empty text is not a path'],
    ['-k /run/x.sock -p 4000 disk.raw', 'option --port: it has no effect with --socket'],
    ['-k /run/x.sock -b ::1 disk.raw', 'option --bind: it has no effect with --socket'],
    [
      '-c nbd0 --port 4000 disk.raw',
      'option --port: it is for serving an image, and has no effect when attaching an image',
    ],
    [
      '-c nbd0 -t disk.raw',
      'option --persistent: it is for serving an image, and has no effect when attaching an image',
    ],
    [
      '-c nbd0 --force disk.raw',
      'option --force: it is for detaching a device, and has no effect when attaching an image',
    ],
    ['--nofork disk.raw', 'option --nofork: it is for attaching an image, and has no effect when serving an image'],
    [
      '-d nbd0 -r',
      'option --read-only: it is for serving an image or attaching an image, and has no effect when detaching a device',
    ],
    ['--verbose=3 disk.raw', 'option --verbose: takes no value'],
    ['-x disk.raw', "unknown option '-x'"],
    ['-vx disk.raw', "unknown option '-x' in -vx"],
    ['-5 disk.raw', "unknown option '-5'"],
    ['-v-r disk.raw', "unknown option '--' in -v-r"],
    ['--conect nbd0 disk.raw', "unknown option '--conect' (Did you mean --connect?)"],
    ['--snapshot disk.raw', "unknown option '--snapshot'"],
    ['--=x disk.raw', "unknown option '--=x'"],
    ['--__proto__ disk.raw', "unknown option '--__proto__'"],
    ['--constructor disk.raw', "unknown option '--constructor'"],
    ['--ver disk.raw', 'option --ver: could be --verbose or --version'],
    ['--connect nbd0 -connect disk.raw', 'option --connect: given twice'],
  ])('%s', (line, message) => {
    const action = parseTsnbd(words(line));
    expect(action.kind).toBe('usage-error');
    expect(messageOf(action)).toEqual(typeof message === 'string' ? message : expect.stringMatching(message));
  });

  test('an image without a name', () => {
    expect(parseTsnbd([''])).toEqual({ kind: 'usage-error', message: 'IMAGE: an empty text is not a path' });
  });

  test('whatever is typed: it answers, and never throws', () => {
    const spelled = Object.entries(tsnbdProgram.options).flatMap(([long, row]) => [
      `--${long}`,
      `--${long}=`,
      `-${'short' in row ? row.short : ''}`,
    ]);
    const argument = fc.oneof(fc.constantFrom(...spelled, '--', '-', 'nbd0', '1', 'raw', '-5'), fc.string());
    fc.assert(
      fc.property(fc.array(argument, { maxLength: 8 }), (argv) => {
        const action = parseTsnbd(argv);
        if (action.kind === 'usage-error') expect(action.message).toMatch(/\S/);
      }),
      { seed: 9, numRuns: 3000 },
    );
  });
});

describe('tsnbd tells about itself', () => {
  test.each(['-h', '--help', '--hel', '-c nbd0 --help', '-vh'])('%s', (line) => {
    const action = parseTsnbd(words(line));
    expect(action.kind).toBe('help');
  });

  test.each(['-V', '--version', '-d nbd0 -V'])('%s', (line) => {
    expect(parseTsnbd(words(line))).toEqual({ kind: 'version', text: expect.stringMatching(/^tsnbd \d+\.\d+\.\d+$/) });
  });

  test('a value is not an option: -c --help attaches nothing and helps nobody', () => {
    expect(messageOf(parseTsnbd(['-c', '--help', 'disk.raw']))).toMatch(/^option --connect: '--help' is no nbd device/);
  });
});

function messageOf(action: TsnbdAction): string {
  return action.kind === 'usage-error' ? action.message : `no usage error: ${JSON.stringify(action)}`;
}
