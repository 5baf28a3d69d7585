import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';

const parseInfo = (line: string) => parseTsnbd(['info', ...line.split(' ').filter((word) => word !== '')]);

const verbosity = { verbose: false, debug: false };
const image = (source: object = {}, rest: object = {}) => ({
  kind: 'info',
  source: { kind: 'image', path: 'disk.raw', format: undefined, forceShare: false, ...source },
  json: false,
  backingChain: false,
  verbosity,
  ...rest,
});
const served = (target: object, rest: object = {}) => ({
  kind: 'info',
  source: { kind: 'export', target },
  json: false,
  backingChain: false,
  verbosity,
  ...rest,
});
const tcp = { address: { kind: 'tcp', host: 'h', port: 10809 }, exportName: 'x' };

test.each([
  ['disk.raw', image()],
  // A path is shown as it was typed.
  ['./a/../disk.raw', image({ path: './a/../disk.raw' })],
  ['./nbd://h/x', image({ path: './nbd://h/x' })],
  ['-f raw disk.raw', image({ format: 'raw' })],
  ['disk.raw --format=raw', image({ format: 'raw' })],
  ['-U disk.raw', image({ forceShare: true })],
  ['--force-share disk.raw', image({ forceShare: true })],
  ['--json disk.raw', image({}, { json: true })],
  ['--backing-chain disk.raw', image({}, { backingChain: true })],
  ['-- -U', image({ path: '-U' })],
  ['nbd://h/x', served(tcp)],
  ['--json nbd://h/x', served(tcp, { json: true })],
  ['nbd:h:10809:exportname=x', served(tcp)],
  ['--debug nbd://h/x', served(tcp, { verbosity: { verbose: true, debug: true } })],
  ['--is read-only nbd://h/x', served(tcp, { question: 'read-only' })],
  ['nbd://h/x --can=trim', served(tcp, { question: 'trim' })],
  ['--has structured-reply nbd://h/x', served(tcp, { question: 'structured-reply' })],
  // Each word by each of the three, in nbdinfo's spellings.
  ['--can read-only nbd://h/x', served(tcp, { question: 'read-only' })],
  ['--can readonly nbd://h/x', served(tcp, { question: 'read-only' })],
  ['--is Fast_Zero nbd://h/x', served(tcp, { question: 'fast-zero' })],
  ['--can multiconn nbd://h/x', served(tcp, { question: 'multi-conn' })],
  ['--can sr nbd://h/x', served(tcp, { question: 'structured-reply' })],
  ['--is structured nbd://h/x', served(tcp, { question: 'structured-reply' })],
  ['--has structured_replies nbd://h/x', served(tcp, { question: 'structured-reply' })],
  ['--has eh nbd://h/x', served(tcp, { question: 'extended-headers' })],
  ['--has extended-header nbd://h/x', served(tcp, { question: 'extended-headers' })],
  ['--has EXTENDED-HEADERS nbd://h/x', served(tcp, { question: 'extended-headers' })],
  ['nbd+unix:///?socket=a', served({ address: { kind: 'unix', path: resolve('a') }, exportName: '' })],
])('%s', (line, expected) => {
  expect(parseInfo(line)).toEqual(expected);
});

describe('tsnbd info refuses, and says why', () => {
  test.each([
    ['', 'describing: FILE is missing'],
    ['a b', "describing: 'b' is one operand too many"],
    ['nbd://h b', "describing: 'b' is one operand too many"],
    ['-f vdi a', "option --format: 'vdi' is not an image format that can be opened (raw, qcow2)"],
    ['-f raw nbd://h', 'option --format: it is for images, not for a URI'],
    ['--backing-chain nbd://h', 'option --backing-chain: it is for images, not for a URI'],
    ['-U nbd://h', 'option --force-share: it is for images, not for a URI'],
    ['nbds://h', "URI: 'nbds://h' is bad at character 1: 'nbds' asks for TLS, which is not supported yet"],
    ['--json=1 a', 'option --json: takes no value'],
    ['-v a', "unknown option '-v'"],
  ])('%s', (line, message) => {
    expect(parseInfo(line)).toEqual({
      kind: 'usage-error',
      message: typeof message === 'string' ? message : expect.stringMatching(message),
    });
  });

  // 2 would be a no.
  test.each([
    ['nbd://h --can', 'option --can: WHAT is missing'],
    ['--is hot nbd://h', "option --is: 'hot' is not a question (connect, read, write, tls, "],
    ['--can constructor nbd://h', "option --can: 'constructor' is not a question"],
    ['--ca zero --i tls nbd://h', 'options --is and --can: one question at a time'],
    ['--can zero --can trim nbd://h', 'options --can and --can: one question at a time'],
    ['--has df disk.raw', 'option --has: it is for a URI, not for images'],
    ['--has df --json nbd://h', 'options --has and --json: only one of them at a time'],
    ['--is tls', 'describing: FILE is missing'],
  ])('%s, with another status', (line, message) => {
    expect(parseInfo(line)).toEqual({
      kind: 'usage-error',
      message: expect.stringContaining(message),
      status: 1,
    });
  });

  test('an empty path', () => {
    expect(parseTsnbd(['info', ''])).toMatchObject({ message: 'FILE: an empty text is not a path' });
  });
});

test.each([
  ['-h', 'help'],
  ['--help', 'help'],
  ['-V', 'version'],
  ['--version', 'version'],
])('%s', (line, kind) => {
  expect(parseInfo(line)).toMatchObject({ kind, text: expect.stringMatching(/^tsnbd /) });
});
