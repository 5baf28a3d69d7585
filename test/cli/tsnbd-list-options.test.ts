import { expect, test } from 'vitest';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';

const parseList = (line: string) => parseTsnbd(['list', ...line.split(' ').filter((word) => word !== '')]);
const list = (json = false, port = 10809, debug = false) => ({
  kind: 'list',
  address: { kind: 'tcp', host: 'h', port },
  json,
  verbosity: { verbose: debug, debug },
});

test.each([
  ['nbd://h', list()],
  ['nbd://h:4000/', list(false, 4000)],
  ['--json nbd://h', list(true)],
  ['nbd:h:4000 --json', list(true, 4000)],
  ['--debug nbd://h', list(false, 10809, true)],
])('%s', (line, expected) => {
  expect(parseList(line)).toEqual(expected);
});

test.each([
  ['', 'listing exports: URI is missing'],
  ['nbd://h/x', 'URI: it names an export, and all of them are listed'],
  ['nbd://h b', "listing exports: 'b' is one operand too many"],
  ['h', /^URI: 'h' is bad at character 1: the scheme 'h' is unknown/],
  ['-U nbd://h', "unknown option '-U'"],
])('%s is refused', (line, message) => {
  expect(parseList(line)).toEqual({
    kind: 'usage-error',
    message: typeof message === 'string' ? message : expect.stringMatching(message),
  });
});

test.each([
  ['-h', 'help'],
  ['--help', 'help'],
  ['-V', 'version'],
  ['--version', 'version'],
])('%s', (line, kind) => {
  expect(parseList(line)).toMatchObject({ kind, text: expect.stringMatching(/^tsnbd /) });
});
