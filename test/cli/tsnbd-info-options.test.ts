import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';

const parseInfo = (line: string) => parseTsnbd(['info', ...line.split(' ').filter((word) => word !== '')]);

const image = (source: object = {}, rest: object = {}) => ({
  kind: 'info',
  source: { kind: 'image', path: 'disk.raw', format: undefined, forceShare: false, ...source },
  json: false,
  backingChain: false,
  ...rest,
});
const served = (target: object, rest: object = {}) => ({
  kind: 'info',
  source: { kind: 'export', target },
  json: false,
  backingChain: false,
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
