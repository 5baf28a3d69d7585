import { resolve } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseTsnbdClient, type TsnbdClientAction, tsnbdClientProgram } from '#tsnbd/cli/tsnbd-client-options.js';

const words = (line: string) => line.split(' ').filter((word) => word !== '');
const tcp = (port = 10809, host = '127.0.0.1') => ({ kind: 'tcp', host, port });
const unix = (path: string) => ({ kind: 'unix', path });

describe('tsnbd-client attaches an export', () => {
  const attach = (request: object = {}, rest: object = {}) => ({
    kind: 'attach',
    request: {
      kind: 'remote',
      address: tcp(),
      exportName: '',
      device: 'nbd0',
      kernelApi: 'auto',
      locksMemory: false,
      blockSizeBytes: undefined,
      requestTimeoutSeconds: 0,
      connections: 1,
      persist: 'where-possible',
      deadTimeoutSeconds: 300,
      retryLimitSeconds: undefined,
      unattended: false,
      ...request,
    },
    foreground: false,
    verbosity: { verbose: false, debug: false },
    ...rest,
  });
  const byIoctl = attach({ kernelApi: 'ioctl', persist: 'no' });
  const persisting = attach({ persist: 'required' });
  const foo = attach({ exportName: 'foo' });
  const block4096 = attach({ blockSizeBytes: 4096 });
  const timeout30 = attach({ requestTimeoutSeconds: 30 });
  const socket = attach({ address: unix('/run/disk.sock') });
  const foreground = attach({}, { foreground: true });
  const verbose = attach({}, { verbosity: { verbose: true, debug: false } });
  const debug = attach({}, { verbosity: { verbose: true, debug: true } });

  test.each([
    ['127.0.0.1 /dev/nbd0', attach()],
    ['127.0.0.1 nbd0', attach()],
    ['127.0.0.1 4000 /dev/nbd0', attach({ address: tcp(4000) })],
    ['::1 4000 /dev/nbd7', attach({ address: tcp(4000, '::1'), device: 'nbd7' })],
    ['-- 127.0.0.1 /dev/nbd0', attach()],
    // Every spelling of an option with a value.
    ['127.0.0.1 /dev/nbd0 -N foo', foo],
    ['127.0.0.1 /dev/nbd0 -Nfoo', foo],
    ['127.0.0.1 /dev/nbd0 -name foo', foo],
    ['127.0.0.1 /dev/nbd0 -name=foo', foo],
    ['127.0.0.1 /dev/nbd0 --name foo', foo],
    ['127.0.0.1 /dev/nbd0 --name=foo', foo],
    ['127.0.0.1 /dev/nbd0 -na foo', foo],
    ['-N foo 127.0.0.1 /dev/nbd0', foo],
    ['127.0.0.1 -N foo /dev/nbd0', foo],
    ['127.0.0.1 /dev/nbd0 -b 4096', block4096],
    ['127.0.0.1 /dev/nbd0 -b4096', block4096],
    ['127.0.0.1 /dev/nbd0 -block-size 4096', block4096],
    ['127.0.0.1 /dev/nbd0 --block-size=4096', block4096],
    ['127.0.0.1 /dev/nbd0 -b 512', attach({ blockSizeBytes: 512 })],
    ['127.0.0.1 /dev/nbd0 -t 30', timeout30],
    ['127.0.0.1 /dev/nbd0 -timeout 30', timeout30],
    ['127.0.0.1 /dev/nbd0 --timeout=30', timeout30],
    ['127.0.0.1 /dev/nbd0 -t 0', attach()],
    // A switch, of which -unix makes the first operand a path.
    ['-unix /run/disk.sock /dev/nbd0', socket],
    ['-u /run/disk.sock /dev/nbd0', socket],
    ['--unix /run/disk.sock /dev/nbd0', socket],
    ['/run/disk.sock /dev/nbd0 -unix', socket],
    ['-unix disk.sock /dev/nbd0', attach({ address: unix(resolve('disk.sock')) })],
    // A URI stands for host, port and name.
    ['nbd://127.0.0.1/foo /dev/nbd0', foo],
    ['nbd://127.0.0.1 /dev/nbd0', attach()],
    ['nbd://[::1]:4000/a%20b nbd0', attach({ address: tcp(4000, '::1'), exportName: 'a b' })],
    ['nbd+unix:///?socket=/run/disk.sock /dev/nbd0', socket],
    ['nbd+unix:///?socket=%00vm nbd0', attach({ address: unix('\0vm') })],
    ['nbd+unix:///foo?socket=disk.sock nbd0', attach({ address: unix(resolve('disk.sock')), exportName: 'foo' })],
    [
      'nbd:127.0.0.1:4000:exportname=foo nbd0 -b 4096',
      attach({ address: tcp(4000), exportName: 'foo', blockSizeBytes: 4096 }),
    ],
    ['127.0.0.1 auto', attach({ device: undefined })],
    ['127.0.0.1 4000 auto', attach({ address: tcp(4000), device: undefined })],
    // By nbd-client's names, and ours.
    ['127.0.0.1 nbd0 -C 4', attach({ connections: 4 })],
    ['127.0.0.1 nbd0 -connections 2', attach({ connections: 2 })],
    ['127.0.0.1 nbd0 --connections=64', attach({ connections: 64 })],
    ['127.0.0.1 nbd0 -persist', persisting],
    ['127.0.0.1 nbd0 -p', persisting],
    ['127.0.0.1 nbd0 --persist --kernel-api=netlink', attach({ persist: 'required', kernelApi: 'netlink' })],
    ['127.0.0.1 nbd0 --no-persist', attach({ persist: 'no', unattended: true })],
    ['127.0.0.1 nbd0 --no-persist -n', attach({ persist: 'no' }, { foreground: true })],
    ['127.0.0.1 nbd0 -T 60', attach({ deadTimeoutSeconds: 60 })],
    ['127.0.0.1 nbd0 -dead-timeout=0', attach({ deadTimeoutSeconds: 0 })],
    ['127.0.0.1 nbd0 --retry-limit 3600', attach({ retryLimitSeconds: 3600 })],
    ['127.0.0.1 nbd0 --kernel-api=netlink', attach({ kernelApi: 'netlink' })],
    ['127.0.0.1 nbd0 -kernel-api ioctl', byIoctl],
    ['127.0.0.1 nbd0 --kernel-api auto', attach()],
    ['127.0.0.1 nbd0 -nonetlink', byIoctl],
    ['127.0.0.1 nbd0 --nonetlink --kernel-api=ioctl', byIoctl],
    ['-L 127.0.0.1 nbd0', byIoctl],
    // What the user decides in place of the server.
    ['127.0.0.1 nbd0 -B 1048576', attach({ sizeBytes: 1_048_576 })],
    ['127.0.0.1 nbd0 -size=10M', attach({ sizeBytes: 10_485_760 })],
    ['127.0.0.1 nbd0 -R', attach({ readOnly: true })],
    ['127.0.0.1 nbd0 --readonly', attach({ readOnly: true })],
    ['127.0.0.1 nbd0 -g', attach({ handshake: 'export-name' })],
    ['127.0.0.1 nbd0 -no-optgo', attach({ handshake: 'export-name' })],
    ['127.0.0.1 nbd0 -P -B 1M', attach({ handshake: 'none', sizeBytes: 1 << 20, persist: 'no', unattended: true })],
    [
      '127.0.0.1 nbd0 -preinit -B 1M -L',
      attach({ handshake: 'none', sizeBytes: 1 << 20, persist: 'no', kernelApi: 'ioctl' }),
    ],
    // As nbd-client was told before it had options.
    [
      '127.0.0.1 4000 nbd0 bs=1024 timeout=30',
      attach(
        { address: tcp(4000), blockSizeBytes: 1024, requestTimeoutSeconds: 30 },
        {
          notices: ['bs=1024 is an old spelling of --block-size=1024', 'timeout=30 is an old spelling of --timeout=30'],
        },
      ),
    ],
    ['timeout=0 127.0.0.1 nbd0', attach({}, { notices: ['timeout=0 is an old spelling of --timeout=0'] })],
    ['127.0.0.1 nbd0 -s', attach({ locksMemory: true })],
    ['127.0.0.1 nbd0 --wait-partition 2', attach({ waitPartition: { kind: 'number', number: 2 } })],
    ['127.0.0.1 nbd0 --wait-partition=label=root=1', attach({ waitPartition: { kind: 'label', text: 'root=1' } })],
    ['127.0.0.1 nbd0 --wait-partition UUID=ab-CD', attach({ waitPartition: { kind: 'uuid', text: 'ab-CD' } })],
    ['127.0.0.1 nbd0 --allow-volumes', attach({ allowVolumes: true })],
    ['127.0.0.1 nbd0 -i disk1', attach({ identifier: 'disk1' })],
    ['127.0.0.1 nbd0 --identifier=a:b', attach({ identifier: 'a:b' })],
    ['127.0.0.1 nbd0 --destroy-on-disconnect', attach({ destroyOnDisconnect: true })],
    ['127.0.0.1 nbd0 --disconnect-on-close', attach({ disconnectOnClose: 'once used' })],
    ['127.0.0.1 nbd0 -swap', attach({ locksMemory: true })],
    ['127.0.0.1 /dev/nbd0 -n', foreground],
    ['127.0.0.1 /dev/nbd0 -nofork', foreground],
    ['127.0.0.1 /dev/nbd0 --nofork', foreground],
    ['127.0.0.1 /dev/nbd0 -v', verbose],
    ['127.0.0.1 /dev/nbd0 -verbose', verbose],
    ['127.0.0.1 /dev/nbd0 -debug', debug],
    ['127.0.0.1 /dev/nbd0 --debug', debug],
    [
      '-nvb4096 127.0.0.1 /dev/nbd0',
      attach({ blockSizeBytes: 4096 }, { foreground: true, verbosity: { verbose: true, debug: false } }),
    ],
    // The value of an option is never taken for an option or an end of them.
    ['127.0.0.1 /dev/nbd0 -N -list', attach({ exportName: '-list' })],
    ['127.0.0.1 /dev/nbd0 -name -unix', attach({ exportName: '-unix' })],
    ['127.0.0.1 /dev/nbd0 -N --', attach({ exportName: '--' })],
    ['127.0.0.1 /dev/nbd0 -N -name', attach({ exportName: '-name' })],
  ])('%s', (line, expected) => {
    expect(parseTsnbdClient(words(line))).toEqual(expected);
  });

  test.each([[['-N', '']], [['-name', '']], [['--name=']], [['-name=']]])('the default export by %j', (name) => {
    expect(parseTsnbdClient(['127.0.0.1', '/dev/nbd0', ...name])).toEqual(attach());
  });

  test('the longest name the protocol allows', () => {
    const longest = 'ä'.repeat(2048);
    expect(parseTsnbdClient(['127.0.0.1', 'nbd0', '-N', longest])).toEqual(attach({ exportName: longest }));
    expect(messageOf(parseTsnbdClient(['127.0.0.1', 'nbd0', '-N', `${longest}x`]))).toBe(
      'option --name: the name has 4097 bytes, NBD allows 4096',
    );
  });
});

describe('tsnbd-client detaches, checks and lists', () => {
  const detach = (force: boolean, release = false) => ({ kind: 'detach', device: 'nbd0', force, release });
  const check = { kind: 'check', device: 'nbd0' };
  const list = (address: object, debug = false) => ({
    kind: 'list',
    address,
    json: false,
    verbosity: { verbose: debug, debug },
  });

  test.each([
    ['-d /dev/nbd0', detach(false)],
    ['-d nbd0', detach(false)],
    ['-d nbd0 -release', detach(false, true)],
    ['-L -d /dev/nbd0', detach(false)],
    ['-disconnect /dev/nbd0', detach(false)],
    ['--disconnect=/dev/nbd0', detach(false)],
    ['-d /dev/nbd0 -force', detach(true)],
    ['--force -d /dev/nbd0', detach(true)],
    ['-c /dev/nbd0', check],
    ['-c nbd0', check],
    ['-check nbd0', check],
    ['--check=/dev/nbd0', check],
    ['-l 127.0.0.1', list(tcp())],
    ['-list 127.0.0.1', list(tcp())],
    ['--list 127.0.0.1', list(tcp())],
    ['127.0.0.1 -l', list(tcp())],
    ['-l 127.0.0.1 4000', list(tcp(4000))],
    ['127.0.0.1 4000 -list', list(tcp(4000))],
    ['-l -u /run/disk.sock', list(unix('/run/disk.sock'))],
    ['-list -unix /run/disk.sock', list(unix('/run/disk.sock'))],
    ['-l nbd://127.0.0.1:4000/', list(tcp(4000))],
    ['nbd+unix:///?socket=/run/disk.sock -l', list(unix('/run/disk.sock'))],
    ['-l -debug 127.0.0.1', list(tcp(), true)],
    ['-l -json 127.0.0.1', { ...list(tcp()), json: true }],
  ])('%s', (line, expected) => {
    expect(parseTsnbdClient(words(line))).toEqual(expected);
  });
});

describe('tsnbd-client refuses, and says why', () => {
  const attachOnly = 'it is for attaching an export, and has no effect when';

  test.each([
    ['', 'attaching an export: HOST is missing'],
    ['127.0.0.1', 'attaching an export: DEV is missing'],
    ['127.0.0.1 4000', 'attaching an export: DEV is missing'],
    ['127.0.0.1 disk', /^DEV: 'disk' is no nbd device/],
    ['127.0.0.1 nbd /dev/nbd0', /^DEV: 'nbd' is no nbd device/],
    ['127.0.0.1 99999 /dev/nbd0', "PORT: '99999' is not a port (1 to 65535)"],
    ['127.0.0.1 0 /dev/nbd0', "PORT: '0' is not a port (1 to 65535)"],
    ['127.0.0.1 010809 /dev/nbd0', "PORT: '010809' is not a port (1 to 65535)"],
    ['127.0.0.1 4000 /dev/nbd0 nbd1', "attaching an export: 'nbd1' is one operand too many"],
    ['127.0.0.1 /dev/nbd0 bs=3', "bs=3: '3' is not a block size (512, 1024, 2048, 4096)"],
    ['127.0.0.1 /dev/nbd0 timeout=3 -t 3', 'timeout=3: it is given twice'],
    ['-l 127.0.0.1 4000 bs=512', "listing exports: 'bs=512' is one operand too many"],
    ['127.0.0.1 nbd0 -B 0', 'option --size: a device cannot have 0 bytes'],
    ['127.0.0.1 nbd0 -P', 'option --preinit: it needs --size, which nobody tells else'],
    ['127.0.0.1 nbd0 -P -B 1M -g', 'options --preinit and --no-optgo: only one of them at a time'],
    ['127.0.0.1 nbd0 -P -B 1M -N x', 'option --name: with --preinit the server is not asked for an export'],
    ['127.0.0.1 nbd0 -P -B 1M -p', 'options --persist and --preinit: such a server does not say who it is'],
    ['127.0.0.1 nbd0 -S', 'option -S: Linux has no Sockets Direct Protocol any more'],
    ['127.0.0.1 nbd0 -sdp', 'option --sdp: Linux has no Sockets Direct Protocol any more'],
    ['127.0.0.1 nbd0 -systemd-mark', /^option --systemd-mark: a root file system/],
    ['-unix', 'attaching an export: PATH is missing'],
    ['-unix /run/disk.sock', 'attaching an export: DEV is missing'],
    ['-unix /run/disk.sock 4000 nbd0', 'PORT: it has no meaning with --unix'],
    ['-unix=/run/disk.sock nbd0', 'option --unix: takes no value'],
    ['-l', 'listing exports: HOST is missing'],
    ['-l 127.0.0.1 foo', "PORT: 'foo' is not a port (1 to 65535)"],
    ['-l 127.0.0.1 4000 nbd0', "listing exports: 'nbd0' is one operand too many"],
    ['nbd://h/x', 'attaching an export: DEV is missing'],
    ['nbd://h:nbd/x nbd0', "URI: 'nbd://h:nbd/x' is bad at character 9: 'nbd' is not a port (1 to 65535)"],
    ['nbds://h nbd0', "URI: 'nbds://h' is bad at character 1: 'nbds' asks for TLS, which is not supported yet"],
    ['nbd://h 4000 nbd0', /^DEV: '4000' is no nbd device/],
    ['nbd://h nbd0 -N x', 'option --name: the URI says which export it is'],
    ['nbd://h nbd0 -u', 'option --unix: the URI says whether it is a unix socket'],
    ['-l nbd://h/x', 'URI: it names an export, and all of them are listed'],
    ['-l nbd://h 4000', "listing exports: '4000' is one operand too many"],
    ['-d', 'option -d: DEV is missing'],
    ['-disconnect', 'option -disconnect: DEV is missing'],
    ['-d nbd0 nbd1', "detaching a device: 'nbd1' is one operand too many"],
    ['-d nbd0 -d nbd1', 'option --disconnect: given twice'],
    ['-c nbd0 nbd1', "checking a device: 'nbd1' is one operand too many"],
    ['-c nbd0p1', /^option --check: .*partition/],
    ['-conect nbd0', /^option --check: 'onect' is no nbd device/],
    ['-c nbd0 -d nbd0', 'options --disconnect and --check: only one of them at a time'],
    ['-l -d nbd0', 'options --disconnect and --list: only one of them at a time'],
    ['-d nbd0 -N foo', `option --name: ${attachOnly} detaching a device`],
    ['-c nbd0 -v', `option --verbose: ${attachOnly} checking a device`],
    ['-l 127.0.0.1 -t 3', `option --timeout: ${attachOnly} listing exports`],
    [
      '-d nbd0 -u',
      'option --unix: it is for attaching an export or listing exports, and has no effect when detaching a device',
    ],
    [
      '127.0.0.1 nbd0 --force',
      'option --force: it is for detaching a device, and has no effect when attaching an export',
    ],
    ['127.0.0.1 nbd0 -b 3', "option --block-size: '3' is not a block size (512, 1024, 2048, 4096)"],
    ['127.0.0.1 nbd0 -b 8192', "option --block-size: '8192' is not a block size (512, 1024, 2048, 4096)"],
    ['127.0.0.1 nbd0 -bogus', "option --block-size: 'ogus' is not a block size (512, 1024, 2048, 4096)"],
    ['127.0.0.1 nbd0 -C 0', "option --connections: '0' is not a number of connections (1 to 64)"],
    ['127.0.0.1 nbd0 -C 65', "option --connections: '65' is not a number of connections (1 to 64)"],
    ['127.0.0.1 nbd0 -t ten', "option --timeout: 'ten' is not a number of seconds (0 to 4000000)"],
    ['127.0.0.1 nbd0 -t -1', "option --timeout: '-1' is not a number of seconds (0 to 4000000)"],
    ['127.0.0.1 nbd0 -t 4000001', "option --timeout: '4000001' is not a number of seconds (0 to 4000000)"],
    [
      '127.0.0.1 nbd0 --kernel-api=nl',
      "option --kernel-api: 'nl' is not one of the kernel's interfaces (auto, ioctl, netlink)",
    ],
    [
      '127.0.0.1 nbd0 -L --kernel-api=netlink',
      'options --nonetlink and --kernel-api=netlink: only one of them at a time',
    ],
    ['127.0.0.1 auto -L', 'DEV: with ioctl the kernel does not choose a device; name one instead of auto'],
    ['-d auto', "option --disconnect: 'auto' is no nbd device: they are named /dev/nbd0, /dev/nbd1 and so on"],
    ['-c nbd0 -L', /^option --nonetlink: it is for attaching an export or detaching a device, and has no effect/],
    ['127.0.0.1 nbd0 -o', "unknown option '-o'"],
    ['127.0.0.1 nbd0 --n', 'option --n: could be --name or --no-optgo or --no-persist or --nofork or --nonetlink'],
    ['127.0.0.1 nbd0 -ver', 'option -ver: could be --verbose or --version'],
    ['127.0.0.1 nbd0 --persist --no-persist', 'options --persist and --no-persist: only one of them at a time'],
    ['127.0.0.1 nbd0 -p -L', /^option --persist: it needs netlink/],
    [
      '127.0.0.1 nbd0 --no-persist --disconnect-on-close',
      'option --disconnect-on-close: with --no-persist nobody is there who does it',
    ],
    ['-d nbd0 -release -force', 'options --force and --release: only one of them at a time'],
    ['127.0.0.1 nbd0 --wait-partition 0', "option --wait-partition: '0' is not a partition (1 to 255)"],
    ['127.0.0.1 nbd0 --wait-partition label=', 'option --wait-partition: the label is empty'],
    ['-L 127.0.0.1 nbd0 -i a', 'option --identifier: it has no effect by ioctl'],
    ['127.0.0.1 nbd0 -T 5 --no-persist', 'option --dead-timeout: it has no effect without --persist'],
    ['127.0.0.1 nbd0 -retry-limit 5 -L', 'option --retry-limit: it has no effect by ioctl'],
    ['127.0.0.1 nbd0 -T forever', "option --dead-timeout: 'forever' is not a number of seconds (0 to 4000000)"],
    ['127.0.0.1 nbd0 --bitmap', "unknown option '--bitmap'"],
  ])('%s', (line, message) => {
    const action = parseTsnbdClient(words(line));
    expect(action.kind).toBe('usage-error');
    expect(messageOf(action)).toEqual(typeof message === 'string' ? message : expect.stringMatching(message));
  });

  test.each([
    ...['-F', '-K', '-A', '-H', '-x', '-y'],
    ...['--certfile', '--keyfile', '--cacertfile', '--tlshostname', '--enable-tls', '--priority'],
  ])('TLS, by its name (%s)', (option) => {
    const action = parseTsnbdClient(['127.0.0.1', 'nbd0', option, 'value']);
    expect(messageOf(action)).toBe(`option ${option}: TLS is not supported yet`);
  });

  test('called as nbd-client, it connects again only when told to', () => {
    const persistOf = (line: string) => {
      const action = parseTsnbdClient(words(`127.0.0.1 nbd0 ${line}`), 'nbd-client');
      return action.kind === 'attach' ? action.request.persist : action;
    };
    expect(persistOf('')).toBe('no');
    expect(persistOf('-persist')).toBe('required');
  });

  test('whatever is typed: it answers, and never throws', () => {
    const spelled = Object.entries(tsnbdClientProgram.options).flatMap(([long, row]) => [
      `--${long}`,
      `-${long}`,
      `-${long}=`,
      `-${'short' in row ? row.short : ''}`,
    ]);
    const argument = fc.oneof(fc.constantFrom(...spelled, '--', '-', 'nbd0', '512', 'host', '-5'), fc.string());
    fc.assert(
      fc.property(fc.array(argument, { maxLength: 8 }), (argv) => {
        const action = parseTsnbdClient(argv);
        if (action.kind === 'usage-error') expect(action.message).toMatch(/\S/);
      }),
      { seed: 9, numRuns: 3000 },
    );
  });

  test('wherever options stand between the operands, they mean the same', () => {
    const options = fc.shuffledSubarray([['-N', 'foo'], ['-b4096'], ['-timeout', '30'], ['-nofork'], ['--verbose']], {
      minLength: 5,
    });
    const expected = parseTsnbdClient(words('127.0.0.1 4000 nbd0 -N foo -b 4096 -t 30 -n -v'));
    fc.assert(
      fc.property(options, fc.array(fc.nat(5), { minLength: 3, maxLength: 3 }), (groups, places) => {
        const argv: string[][] = [...groups];
        const [first = 0, second = 0, third = 0] = places.sort((a, b) => a - b);
        argv.splice(third, 0, ['nbd0']);
        argv.splice(second, 0, ['4000']);
        argv.splice(first, 0, ['127.0.0.1']);
        expect(parseTsnbdClient(argv.flat())).toEqual(expected);
      }),
      { seed: 9, numRuns: 300 },
    );
  });
});

describe('tsnbd-client tells about itself', () => {
  test.each(['-h', '-help', '--help', '-d nbd0 -help'])('%s', (line) => {
    expect(parseTsnbdClient(words(line)).kind).toBe('help');
  });

  test.each(['-V', '-version', '--version'])('%s', (line) => {
    const text = expect.stringMatching(/^tsnbd-client \d+\.\d+\.\d+$/);
    expect(parseTsnbdClient(words(line))).toEqual({ kind: 'version', text });
  });
});

function messageOf(action: TsnbdClientAction): string {
  return action.kind === 'usage-error' ? action.message : `no usage error: ${JSON.stringify(action)}`;
}
