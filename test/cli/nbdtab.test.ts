import { describe, expect, test } from 'vitest';
import { nbdtabLine } from '#tsnbd/cli/nbdtab.js';
import { nbdtabSettings } from '#tsnbd/cli/nbdtab-options.js';
import { parseTsnbdClient } from '#tsnbd/cli/tsnbd-client-options.js';

const line = (text: string, device = 'nbd0') => nbdtabLine(text, device);

describe('a line of nbdtab', () => {
  test.each([
    ['nbd0 host export', 'host', 'export', []],
    ['/dev/nbd0\thost \t export\tport=4000,persist', 'host', 'export', ['port', 'persist']],
    // What nbd-client calls a syntax error that spoils all lines (anchors.md, section 1).
    ['  nbd0 host export  ', 'host', 'export', []],
    ['nbd0 host export # what it is', 'host', 'export', []],
    ['nbd0 host export bs=512, persist', 'host', 'export', ['bs', 'persist']],
    ['nbd0 host "" port=1', 'host', '', ['port']],
    ['nonsense\nnbd00 x y\nnbd0 host ex#port\n#', 'host', 'ex#port', []],
    ['nbd0 host export ,,persist,', 'host', 'export', ['persist']],
    ['nbd1 a b\r\nnbd0 host export', 'host', 'export', []],
  ])('%j', (text, host, exportName, options) => {
    const found = line(text);
    expect(found).toMatchObject({ host, exportName });
    expect(found?.options.map(({ name }) => name)).toEqual(options);
  });

  test('is that of the device, and there is one', () => {
    expect(line('#nbd0 a b\nnbd1 c d\n')).toBeUndefined();
    expect(line('nbd1 a b\nnbd12 c d\n', 'nbd12')).toMatchObject({ host: 'c' });
    expect(() => line('nbd0 a b\n\n/dev/nbd0 c d')).toThrow('/etc/nbdtab, line 3: nbd0 has a line already, 1');
    expect(() => line('\nnbd0 a')).toThrow('/etc/nbdtab, line 2: there should be: DEVICE HOST EXPORT [OPTIONS]');
    expect(() => line('nbd0 a b c d')).toThrow("/etc/nbdtab, line 1: 'd' is one word too many");
  });

  const settings = (options: string) => nbdtabSettings(line(`nbd0 h e ${options}`) ?? expect.fail('no line'));

  test('has options', () => {
    expect(
      settings(
        'port=4000,bs=4096,timeout=7,dead-timeout=9,conns=3,unix,persist,swap,no_optgo,_netdev,_x=1,what,ever=2',
      ),
    ).toEqual({
      port: 4000,
      blockSizeBytes: 4096,
      timeoutSeconds: 7,
      deadTimeoutSeconds: 9,
      connections: 3,
      noOptgo: true,
      unix: true,
      persist: true,
      swap: true,
      unknown: ['ever', 'what'],
    });
  });

  test.each([
    ['port=x', "/etc/nbdtab, option port: 'x' is not a port (1 to 65535)"],
    ['port', '/etc/nbdtab, option port: it needs a value'],
    ['bs=1000', '/etc/nbdtab, option bs: '],
    ['timeout=-1', '/etc/nbdtab, option timeout: '],
    ['tls', '/etc/nbdtab, option tls: TLS is not supported yet'],
    ['certfile=/x', '/etc/nbdtab, option certfile: TLS is not supported yet'],
    ['preinit', '/etc/nbdtab, option preinit: '],
  ])('has options that are refused: %s', (options, message) => {
    expect(() => settings(options)).toThrow(message);
  });
});

describe('tsnbd-client DEV', () => {
  const parse = (words: string, text: string, calledAs?: string) =>
    parseTsnbdClient(words.split(' '), calledAs, () => text);

  test('attaches what nbdtab says', () => {
    expect(
      parse('/dev/nbd3 -n', 'nbd3 192.0.2.7 disk port=4000,timeout=7,_netdev,dead-timeout=20,conns=2,odd'),
    ).toMatchObject({
      kind: 'attach',
      foreground: true,
      notices: ['/etc/nbdtab: the option odd of nbd3 is unknown'],
      request: {
        device: 'nbd3',
        address: { kind: 'tcp', host: '192.0.2.7', port: 4000 },
        exportName: 'disk',
        requestTimeoutSeconds: 7,
        deadTimeoutSeconds: 20,
        connections: 2,
        persist: 'where-possible',
      },
    });
    expect(parse('nbd0', 'nbd0 /run/sock disk unix,swap', 'tsnbd-client')).toMatchObject({
      request: { locksMemory: true, address: { kind: 'unix', path: '/run/sock' } },
    });
    // As nbd-client: it goes before the command line; and persist decides there.
    expect(parse('nbd0 -t 5', 'nbd0 h e timeout=7')).toMatchObject({ request: { requestTimeoutSeconds: 7 } });
    expect(parse('nbd0', 'nbd0 h e persist', 'nbd-client')).toMatchObject({ request: { persist: 'required' } });
    expect(parse('nbd0', 'nbd0 h e', 'nbd-client')).toMatchObject({ request: { persist: 'no' } });
  });

  test('is a mistake without a line; a host may be called so', () => {
    expect(parse('nbd0', '')).toEqual({
      kind: 'usage-error',
      message: 'DEV: nbd0 is alone, and has no line in /etc/nbdtab',
    });
    expect(parse('nbd0 /dev/nbd1', 'nbd0 h e')).toMatchObject({
      request: { device: 'nbd1', address: { host: 'nbd0' } },
    });
  });
});
