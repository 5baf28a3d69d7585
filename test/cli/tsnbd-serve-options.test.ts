import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parseTsnbd, type TsnbdAction } from '#tsnbd/cli/tsnbd-options.js';

const QUIET = { verbose: false, debug: false };
const words = (line: string) => line.split(' ').filter((word) => word !== '');
const parseServe = (line: string, passedSockets = 0) => parseTsnbd(['serve', ...words(line)], passedSockets);
const tcp = (host: string, port: number) => ({ kind: 'tcp', host, port });
const ofImage = (name: string, path: string, description?: string) => ({ name, description, imagePath: resolve(path) });

describe('tsnbd serve serves several exports', () => {
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
  const serve = (rest: object = {}, settings: object = {}) => ({
    kind: 'serve',
    address: tcp('127.0.0.1', 10809),
    exports: [ofImage('a', 'a.raw')],
    settings: { ...SETTINGS, ...settings },
    clientsMax: 1,
    persistent: false,
    handshakeLimitMs: 10_000,
    verbosity: QUIET,
    ...rest,
  });
  const two = [ofImage('a', 'a.raw'), ofImage('b', '/var/b.raw')];
  const described = serve({ exports: [ofImage('a', 'a.raw', 'root of x')] });

  test.each([
    ['a=a.raw', serve()],
    ['a=a.raw b=/var/b.raw', serve({ exports: two })],
    ['a=a.raw -t b=/var/b.raw', serve({ exports: two, persistent: true })],
    ['a=a.raw -- b=/var/b.raw', serve({ exports: two })],
    // The name ends at the first equals sign; an empty one is the default export.
    ['=a.raw', serve({ exports: [ofImage('', 'a.raw')] })],
    ['a=x=y.raw', serve({ exports: [ofImage('a', 'x=y.raw')] })],
    ['-- -a=a.raw', serve({ exports: [ofImage('-a', 'a.raw')] })],
    ['serve=a.raw', serve({ exports: [ofImage('serve', 'a.raw')] })],
    ['-D a=x a=a.raw', serve({ exports: [ofImage('a', 'a.raw', 'x')] })],
    ['a=a.raw --description=a=x=y', serve({ exports: [ofImage('a', 'a.raw', 'x=y')] })],
    ['--description a= a=a.raw', serve({ exports: [ofImage('a', 'a.raw', '')] })],
    [
      '-D b=two a=a.raw b=b.raw -Da=one',
      serve({ exports: [ofImage('a', 'a.raw', 'one'), ofImage('b', 'b.raw', 'two')] }),
    ],
    ['-b ::1 -p 4000 a=a.raw', serve({ address: tcp('::1', 4000) })],
    ['--bind=::1 --port=4000 a=a.raw', serve({ address: tcp('::1', 4000) })],
    ['-k /run/x.sock a=a.raw', serve({ address: { kind: 'unix', path: '/run/x.sock' } })],
    ['--socket=x.sock a=a.raw', serve({ address: { kind: 'unix', path: resolve('x.sock') } })],
    ['-e 0 a=a.raw', serve({ clientsMax: undefined })],
    ['--shared=5 a=a.raw', serve({ clientsMax: 5 })],
    ['--persistent a=a.raw', serve({ persistent: true })],
    ['--handshake-limit=3 a=a.raw', serve({ handshakeLimitMs: 3_000 })],
    ['-f raw a=a.raw', serve({}, { format: 'raw' })],
    ['--format=raw a=a.raw', serve({}, { format: 'raw' })],
    ['-r a=a.raw', serve({}, { readOnly: true })],
    ['--read-only a=a.raw', serve({}, { readOnly: true })],
    ['-r --force-share a=a.raw', serve({}, { readOnly: true, forceShare: true })],
    ['-U -r a=a.raw', serve({}, { readOnly: true, forceShare: true })],
    ['-l one a=a.raw', serve({}, { readOnly: true, snapshot: { idOrName: 'one' } })],
    ['--load-snapshot=one a=a.raw', serve({}, { readOnly: true, snapshot: { idOrName: 'one' } })],
    ['-s a=a.raw', serve({}, { temporary: true })],
    ['--snapshot a=a.raw', serve({}, { temporary: true })],
    ['--cache=writethrough a=a.raw', serve({}, { cache: 'writethrough' })],
    ['-n a=a.raw', serve({}, { cache: 'none' })],
    ['--nocache a=a.raw', serve({}, { cache: 'none' })],
    ['--discard=ignore a=a.raw', serve({}, { discard: 'ignore' })],
    ['--fork a=a.raw', serve({ fork: true })],
    ['--pid-file server.pid a=a.raw', serve({ pidFile: resolve('server.pid') })],
    ['-o 4k a=a.raw', serve({}, { part: { kind: 'offset', offsetBytes: 4096 } })],
    ['--offset=4k a=a.raw', serve({}, { part: { kind: 'offset', offsetBytes: 4096 } })],
    ['--partition=1 a=a.raw', serve({}, { part: { kind: 'partition', number: 1 } })],
    ['--detect-zeroes=on a=a.raw', serve({}, { detectZeroes: 'on' })],
    ['-v a=a.raw', serve({ verbosity: { verbose: true, debug: false } })],
    ['--verbose a=a.raw', serve({ verbosity: { verbose: true, debug: false } })],
    ['--debug a=a.raw', serve({ verbosity: { verbose: true, debug: true } })],
  ])('%s', (line, expected) => {
    expect(parseServe(line)).toEqual(expected);
  });

  test('a description may hold blanks', () => {
    expect(parseTsnbd(['serve', '-D', 'a=root of x', 'a=a.raw'])).toEqual(described);
  });

  test('on the socket that a service manager passed', () => {
    expect(parseServe('a=a.raw', 1)).toEqual(serve({ address: { kind: 'inherited', fd: 3 } }));
  });

  test('up to 100 of them, with names and descriptions of 4096 bytes', () => {
    const pairs = Array.from({ length: 100 }, (_, index) => `${index}=x.raw`);
    expect(parseTsnbd(['serve', ...pairs])).toMatchObject({ exports: { length: 100 } });
    expect(messageOf(parseTsnbd(['serve', ...pairs, 'y=x.raw']))).toBe('NAME=PATH: more than 100 exports');

    const name = 'ä'.repeat(2_048);
    const long = parseTsnbd(['serve', '-D', `${name}=${name}`, `${name}=x.raw`]);
    expect(long).toMatchObject({ exports: [{ name, description: name }] });
    expect(messageOf(parseTsnbd(['serve', `${name}a=x.raw`]))).toBe(
      'NAME=PATH: the name has 4097 bytes, NBD allows 4096',
    );
    expect(messageOf(parseTsnbd(['serve', 'a=x.raw', '-D', `a=${name}a`]))).toBe(
      'option --description: the description has 4097 bytes, NBD allows 4096',
    );
  });
});

describe('tsnbd serve refuses, and says why', () => {
  test.each([
    ['', 'serving exports: NAME=PATH is missing'],
    ['-t', 'serving exports: NAME=PATH is missing'],
    ['a.raw', "NAME=PATH: 'a.raw' is not NAME=PATH"],
    ['a=a.raw b.raw', "NAME=PATH: 'b.raw' is not NAME=PATH"],
    ['a=', 'NAME=PATH: an empty text is not a path'],
    ['a=a.raw a=b.raw', "NAME=PATH: the export 'a' is there twice"],
    ['=a.raw =b.raw', "NAME=PATH: the export '' is there twice"],
    ['-D b=x a=a.raw', "option --description: there is no export 'b'"],
    ['-D x a=a.raw', "option --description: 'x' is not NAME=TEXT"],
    ['-D a=x -D a=y a=a.raw', "option --description: the export 'a' is described twice"],
    ['a=a.raw -D', 'option -D: NAME=TEXT is missing'],
    ['-c nbd0 a=a.raw', "unknown option '-c'"],
    ['-x a a=a.raw', "unknown option '-x'"],
    ['-k /run/x.sock -p 4000 a=a.raw', 'option --port: it has no effect with --socket'],
    ['-n --cache=none a=a.raw', 'options --cache and --nocache: only one of them at a time'],
  ])('%s', (line, message) => {
    expect(messageOf(parseServe(line))).toBe(message);
  });

  test('two sockets of a service manager', () => {
    expect(messageOf(parseServe('a=a.raw', 2))).toBe('LISTEN_FDS: 2 sockets were passed, and only 1 can be used');
  });
});

describe('tsnbd serve tells about itself', () => {
  test.each(['-h', '--help', '-v a=a.raw --help'])('%s', (line) => {
    expect(parseServe(line)).toEqual({ kind: 'help', text: expect.stringMatching(/^tsnbd serve: serve several/) });
  });

  test.each(['-V', '--version'])('%s', (line) => {
    expect(parseServe(line)).toEqual({ kind: 'version', text: expect.stringMatching(/^tsnbd \d+\.\d+\.\d+$/) });
  });

  test('only as the first word: an image may be called serve', () => {
    expect(parseTsnbd(['./serve'])).toMatchObject({ kind: 'serve', exports: [ofImage('', 'serve')] });
    expect(parseTsnbd(['-t', 'serve'])).toMatchObject({ kind: 'serve', exports: [ofImage('', 'serve')] });
  });
});

function messageOf(action: TsnbdAction): string {
  return action.kind === 'usage-error' ? action.message : `no usage error: ${JSON.stringify(action)}`;
}
