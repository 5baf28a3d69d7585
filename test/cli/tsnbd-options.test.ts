import { resolve } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseTsnbd, type TsnbdAction, tsnbdProgram } from '#tsnbd/cli/tsnbd-options.js';

const QUIET = { verbose: false, debug: false };
const SETTINGS = {
  format: undefined,
  readOnly: false,
  snapshot: undefined,
  temporary: false,
  forceShare: false,
  cache: undefined,
  discard: undefined,
  detectZeroes: undefined,
};
const words = (line: string) => line.split(' ').filter((word) => word !== '');

describe('tsnbd attaches an image', () => {
  const attach = (request: object = {}, rest: object = {}) => ({
    kind: 'attach',
    request: {
      kind: 'image',
      imagePath: resolve('disk.raw'),
      ...SETTINGS,
      device: 'nbd0',
      kernelApi: 'auto',
      persist: false,
      deadTimeoutSeconds: undefined,
      locksMemory: false,
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
    ['-c /dev/nbd0 -f qcow2 disk.raw', attach({ format: 'qcow2' })],
    ['-c nbd0 -o 1M disk.raw', attach({ part: { kind: 'offset', offsetBytes: 1 << 20 } })],
    ['-c nbd0 --offset=512 disk.raw', attach({ part: { kind: 'offset', offsetBytes: 512 } })],
    ['-c nbd0 --partition 2 disk.raw', attach({ part: { kind: 'partition', number: 2 } })],
    ['-c /dev/nbd0 -r --force-share disk.raw', attach({ readOnly: true, forceShare: true })],
    ['-U -rc /dev/nbd0 disk.raw', attach({ readOnly: true, forceShare: true })],
    ['-c nbd0 -l one disk.raw', attach({ readOnly: true, snapshot: { idOrName: 'one' } })],
    ['-c nbd0 -U -l 1 disk.raw', attach({ readOnly: true, snapshot: { idOrName: '1' }, forceShare: true })],
    ['-c nbd0 -l snapshot.id=1 disk.raw', attach({ readOnly: true, snapshot: { id: '1' } })],
    [
      '-c nbd0 --load-snapshot=snapshot.name=a,,b,,,snapshot.id=1 disk.raw',
      attach({ readOnly: true, snapshot: { id: '1', name: 'a,b,' } }),
    ],
    ['-c nbd0 -s disk.raw', attach({ temporary: true })],
    ['-c nbd0 --snapshot -l one disk.raw', attach({ temporary: true, snapshot: { idOrName: 'one' } })],
    ['-c /dev/nbd0 --cache=none disk.raw', attach({ cache: 'none' })],
    ['-nc /dev/nbd0 disk.raw', attach({ cache: 'none' })],
    ['-c /dev/nbd0 --discard=ignore disk.raw', attach({ discard: 'ignore' })],
    ['-c /dev/nbd0 --detect-zeroes=unmap disk.raw', attach({ detectZeroes: 'unmap' })],
    ['-c /dev/nbd0 /var/disk.raw', attach({ imagePath: '/var/disk.raw' })],
    ['-c /dev/nbd0 -- -odd.raw', attach({ imagePath: resolve('-odd.raw') })],
    ['-c auto disk.raw', attach({ device: undefined })],
    ['-c nbd0 --kernel-api=netlink disk.raw', attach({ kernelApi: 'netlink' })],
    ['--kernel-api ioctl -c nbd0 disk.raw', attach({ kernelApi: 'ioctl' })],
    ['-c nbd0 --persist disk.raw', attach({ persist: true, deadTimeoutSeconds: 300 })],
    ['-c nbd0 --persist --dead-timeout 9 disk.raw', attach({ persist: true, deadTimeoutSeconds: 9 })],
    ['-c nbd0 --dead-timeout=0 disk.raw', attach({ deadTimeoutSeconds: 0 })],
    ['-c nbd0 --swap disk.raw', attach({ locksMemory: true })],
    ['-c nbd0 --wait-partition 2 disk.raw', attach({ waitPartition: { kind: 'number', number: 2 } })],
    ['-c nbd0 --wait-partition=label=root=1 disk.raw', attach({ waitPartition: { kind: 'label', text: 'root=1' } })],
    ['-c nbd0 --wait-partition UUID=ab-CD disk.raw', attach({ waitPartition: { kind: 'uuid', text: 'ab-CD' } })],
    ['-c nbd0 --allow-volumes disk.raw', attach({ allowVolumes: true })],
    ['-c nbd0 -i disk1 disk.raw', attach({ identifier: 'disk1' })],
    ['-c nbd0 --identifier=a:b disk.raw', attach({ identifier: 'a:b' })],
    ['-c nbd0 --destroy-on-disconnect disk.raw', attach({ destroyOnDisconnect: true })],
    ['-c nbd0 --disconnect-on-close disk.raw', attach({ disconnectOnClose: 'once used' })],
    ['-c /dev/nbd0 --nofork disk.raw', attach({}, { foreground: true })],
    ['-c /dev/nbd0 -v disk.raw', attach({}, { verbosity: { verbose: true, debug: false } })],
    ['-c /dev/nbd0 --verbose disk.raw', attach({}, { verbosity: { verbose: true, debug: false } })],
    ['-c /dev/nbd0 --debug disk.raw', attach({}, { verbosity: { verbose: true, debug: true } })],
  ])('%s', (line, expected) => {
    expect(parseTsnbd(words(line))).toEqual(expected);
  });
});

describe('tsnbd detaches a device', () => {
  const detach = (rest: object = {}) => ({ kind: 'detach', device: 'nbd0', force: false, release: false, ...rest });

  test.each([
    ['-d /dev/nbd0', detach()],
    ['-d nbd0', detach()],
    ['-d nbd0 --release', detach({ release: true })],
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

describe('tsnbd lists exports', () => {
  test.each([
    ['-L', { kind: 'tcp', host: '127.0.0.1', port: 10809 }],
    ['--list -b ::1 -p 4000', { kind: 'tcp', host: '::1', port: 4000 }],
    ['-L -k /run/disk.sock', { kind: 'unix', path: '/run/disk.sock' }],
    ['-L -k /run/disk.sock --debug', { kind: 'unix', path: '/run/disk.sock' }],
  ])('%s', (line, address) => {
    const debug = line.includes('debug');
    expect(parseTsnbd(words(line))).toEqual({ kind: 'list-as-qemu', address, verbosity: { verbose: debug, debug } });
  });

  test('not at a socket that was passed', () => {
    expect(parseTsnbd(['-L'], 1)).toMatchObject({ message: expect.stringContaining('LISTEN_FDS') });
    expect(parseTsnbd(['--fork', 'disk.raw'], 1)).toMatchObject({ message: expect.stringContaining('LISTEN_FDS') });
  });
});

describe('tsnbd serves an image', () => {
  const tcp = (host: string, port: number) => ({ kind: 'tcp', host, port });
  const only = (rest: object = {}) => ({
    exports: [{ name: '', description: undefined, imagePath: resolve('disk.raw'), ...rest }],
  });
  const serve = (rest: object = {}, settings: object = {}) => ({
    kind: 'serve',
    address: tcp('127.0.0.1', 10809),
    ...only(),
    settings: { ...SETTINGS, ...settings },
    clientsMax: 1,
    persistent: false,
    handshakeLimitMs: 10_000,
    verbosity: QUIET,
    ...rest,
  });

  test.each([
    ['disk.raw', serve()],
    ['--bind=127.0.0.1 --port=4000 -f raw disk.raw', serve({ address: tcp('127.0.0.1', 4000) }, { format: 'raw' })],
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
      serve({ persistent: true, clientsMax: 2, verbosity: { verbose: true, debug: false } }, { readOnly: true }),
    ],
    ['-x disk disk.raw', serve(only({ name: 'disk' }))],
    ['--export-name=disk disk.raw', serve(only({ name: 'disk' }))],
    ['-x= disk.raw', serve(only({ name: '=' }))],
    ['--export-name= disk.raw', serve()],
    ['-D text disk.raw', serve(only({ description: 'text' }))],
    ['--description=text -x disk disk.raw', serve(only({ name: 'disk', description: 'text' }))],
    ['-D a -D b=c disk.raw', serve(only({ description: 'b=c' }))],
    ['--handshake-limit=1 disk.raw', serve({ handshakeLimitMs: 1_000 })],
    ['--handshake-limit 0 disk.raw', serve({ handshakeLimitMs: 0 })],
    ['--handshake-limit=86400 disk.raw', serve({ handshakeLimitMs: 86_400_000 })],
    ['--cache=none disk.raw', serve({}, { cache: 'none' })],
    ['--cache=writeback disk.raw', serve({}, { cache: 'writeback' })],
    ['--cache writethrough disk.raw', serve({}, { cache: 'writethrough' })],
    ['--cache=directsync disk.raw', serve({}, { cache: 'directsync' })],
    ['--cache=unsafe disk.raw', serve({}, { cache: 'unsafe' })],
    ['-n disk.raw', serve({}, { cache: 'none' })],
    ['--nocache disk.raw', serve({}, { cache: 'none' })],
    ['--discard=unmap disk.raw', serve({}, { discard: 'unmap' })],
    ['--discard=on disk.raw', serve({}, { discard: 'unmap' })],
    ['--discard=ignore disk.raw', serve({}, { discard: 'ignore' })],
    ['--discard off disk.raw', serve({}, { discard: 'ignore' })],
    ['--fork disk.raw', serve({ fork: true })],
    ['--fork --pid-file=server.pid disk.raw', serve({ fork: true, pidFile: resolve('server.pid') })],
    ['--partition 5 disk.raw', serve({}, { part: { kind: 'partition', number: 5 } })],
    ['--detect-zeroes=off disk.raw', serve({}, { detectZeroes: 'off' })],
    ['--detect-zeroes=on --discard=off disk.raw', serve({}, { detectZeroes: 'on', discard: 'ignore' })],
    ['--detect-zeroes=unmap disk.raw', serve({}, { detectZeroes: 'unmap' })],
    ['--detect-zeroes=unmap --discard=on disk.raw', serve({}, { detectZeroes: 'unmap', discard: 'unmap' })],
    ['-p 4000 -p 4001 disk.raw', serve({ address: tcp('127.0.0.1', 4001) })],
  ])('%s', (line, expected) => {
    expect(parseTsnbd(words(line))).toEqual(expected);
  });
});

describe('tsnbd with a listening socket of a service manager', () => {
  test('serves on it', () => {
    const address = { kind: 'inherited', fd: 3 };
    expect(parseTsnbd(['disk.raw'], 1)).toMatchObject({ kind: 'serve', address });
  });

  test.each([
    ['-p 4000 disk.raw', 1, 'option --port: it has no effect with a socket that was passed (LISTEN_FDS)'],
    ['-b ::1 disk.raw', 1, 'option --bind: it has no effect with a socket that was passed (LISTEN_FDS)'],
    ['-k /run/x.sock disk.raw', 1, 'option --socket: it has no effect with a socket that was passed (LISTEN_FDS)'],
    ['-c nbd0 disk.raw', 1, 'option --connect: it has no effect with a socket that was passed (LISTEN_FDS)'],
    ['disk.raw', 2, 'LISTEN_FDS: 2 sockets were passed, and only 1 can be used'],
  ])('refuses %s with %i', (line, passedSockets, message) => {
    expect(parseTsnbd(words(line), passedSockets)).toEqual({ kind: 'usage-error', message });
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
    ['-c nbd0 --persist --nofork disk.raw', /^option --persist: with --nofork it is for whoever started/],
    ['-c nbd0 --persist --disconnect-on-close disk.raw', /^options --persist and --disconnect-on-close: only one/],
    ['-c nbd0 --persist --kernel-api=ioctl disk.raw', /^option --persist: it needs netlink/],
    ['-c nbd0 --dead-timeout=9 --kernel-api=ioctl disk.raw', /^option --dead-timeout: it needs netlink/],
    ['--persist disk.raw', /^option --persist: .*no effect when serving an image/],
    ['-f vmdk disk.vmdk', "option --format: 'vmdk' is not an image format that can be opened (raw, qcow2)"],
    ['--force-share disk.qcow2', 'option --force-share: it needs --read-only'],
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
    ['--handshake-limit=86401 disk.raw', "option --handshake-limit: '86401' is not a number of seconds (0 to 86400)"],
    ['--handshake-limit=-1 disk.raw', "option --handshake-limit: '-1' is not a number of seconds (0 to 86400)"],
    [
      '--cache=fast disk.raw',
      "option --cache: 'fast' is not a cache mode (writeback, none, writethrough, directsync, unsafe)",
    ],
    ['--cache= disk.raw', /^option --cache: '' is not a cache mode/],
    ['-n --cache=none disk.raw', 'options --cache and --nocache: only one of them at a time'],
    ['--discard=yes disk.raw', "option --discard: 'yes' is not a discard mode (unmap, on, ignore, off)"],
    ['-L disk.raw', "listing exports: 'disk.raw' is one operand too many"],
    ['-L -f raw', /^option --format: it is for .*, and has no effect when listing exports$/],
    ['-L --fork', /^option --fork: it is for serving an image, and has no effect when listing exports$/],
    ['-L -c nbd0', 'options --connect and --list: only one of them at a time'],
    ['-c nbd0 --fork disk.raw', /^option --fork: it is for serving an image/],
    ['-o 100 disk.raw', "option --offset: '100' is no multiple of 512 bytes"],
    ['--partition=0 disk.raw', "option --partition: '0' is not a partition (1 to 1024)"],
    ['-o 512 --partition 1 disk.raw', 'options --offset and --partition: only one of them at a time'],
    ['-P 1 disk.raw', /^option -P: .*--partition/],
    ...['--object', '--tls-creds=c', '--tls-authz=a', '--tls-hostname=h'].map((option): [string, RegExp] => [
      `${option} disk.raw`,
      /^option --(object|tls-[a-z]+): TLS is not supported yet$/,
    ]),
    ['--aio=native disk.raw', /^option --aio: .*leave it out$/],
    ['-A disk.raw', /^option -A: .*leave it out$/],
    ['-B dirt disk.raw', /^option -B: .*tsnbd info/],
    ['--image-opts driver=raw', /^option --image-opts: /],
    ['-T help disk.raw', /^option -T: /],
    ['--detect-zeroes=yes disk.raw', "option --detect-zeroes: 'yes' is not a way to detect zeroes (off, on, unmap)"],
    ['--detect-zeroes=unmap --discard=off disk.raw', 'option --detect-zeroes: unmap needs --discard=unmap'],
    ['-c nbd0 --detect-zeroes=unmap --discard=ignore disk.raw', /unmap needs --discard=unmap/],
    ['-x a -c nbd0 disk.raw', /^option --export-name: it is for serving an image/],
    ['-D a -c nbd0 disk.raw', /^option --description: it is for serving an image/],
    ['--handshake-limit=1 -c nbd0 disk.raw', /^option --handshake-limit: it is for serving an image/],
    ['-d nbd0 --cache=none', /^option --cache: .*no effect when detaching a device/],
    ['--bind= disk.raw', 'option --bind: an empty text is not a host'],
    ['--socket= disk.raw', 'option --socket: an empty text is not a path'],
    ['-k /run/x.sock -p 4000 disk.raw', 'option --port: it has no effect with --socket'],
    ['-k /run/x.sock -b ::1 disk.raw', 'option --bind: it has no effect with --socket'],
    [
      '-c nbd0 --port 4000 disk.raw',
      'option --port: it is for serving an image or listing exports, and has no effect when attaching an image',
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
    ['-y disk.raw', "unknown option '-y'"],
    ['-vy disk.raw', "unknown option '-y' in -vy"],
    ['-v serve a=a.raw', "serving an image: 'a=a.raw' is one operand too many"],
    ['-5 disk.raw', "unknown option '-5'"],
    ['-v-r disk.raw', "unknown option '--' in -v-r"],
    ['--conect nbd0 disk.raw', "unknown option '--conect' (Did you mean --connect?)"],
    ['-l snapshot.tag=1 disk.raw', /^option --load-snapshot: 'snapshot.tag' is not a way to choose a snapshot/],
    ['-l snapshot.id=1,x disk.raw', "option --load-snapshot: 'x' is not KEY=VALUE"],
    ['-l snapshot.id= disk.raw', 'option --load-snapshot: snapshot.id is empty'],
    ['-l snapshot.id=1,snapshot.id=2 disk.raw', 'option --load-snapshot: snapshot.id is there twice'],
    ['--load-snapshot= disk.raw', 'option --load-snapshot: an empty text is not a snapshot'],
    ['-rs disk.raw', 'option --snapshot: it has no effect with --read-only'],
    ['-sU disk.raw', 'option --force-share: it needs --read-only'],
    ['--snapshoot disk.raw', "unknown option '--snapshoot' (Did you mean --snapshot?)"],
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
    const argument = fc.oneof(
      fc.constantFrom(...spelled, '--', '-', 'nbd0', '1', 'raw', '-5', 'serve', 'a=b', 'unsafe', 'unmap'),
      fc.string(),
    );
    const argvs = fc.tuple(fc.constantFrom([], ['serve']), fc.array(argument, { maxLength: 8 }));
    fc.assert(
      fc.property(argvs, ([command, rest]) => {
        const action = parseTsnbd([...command, ...rest]);
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
