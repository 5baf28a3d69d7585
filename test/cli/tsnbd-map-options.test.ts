import { expect, test } from 'vitest';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';

const parseMap = (line: string) => parseTsnbd(['map', ...line.split(' ').filter((word) => word !== '')]);

const verbosity = { verbose: false, debug: false };
const image = (form: unknown = 'text', source: object = {}) => ({
  kind: 'map',
  source: { kind: 'image', path: 'disk.raw', format: undefined, forceShare: false, ...source },
  form,
  verbosity,
});
const served = (form: unknown) => ({
  kind: 'map',
  source: { kind: 'export', target: { address: { kind: 'tcp', host: 'h', port: 10809 }, exportName: 'x' } },
  form,
  verbosity,
});

test.each([
  ['disk.raw', image()],
  ['--json disk.raw', image('json')],
  ['--svg a.svg disk.raw', image({ svgPath: 'a.svg' })],
  ['disk.raw --svg=a.svg', image({ svgPath: 'a.svg' })],
  ['-f raw disk.raw', image('text', { format: 'raw' })],
  ['--format=raw -U disk.raw', image('text', { format: 'raw', forceShare: true })],
  ['--force-share disk.raw', image('text', { forceShare: true })],
  ['nbd://h/x', served('text')],
  ['nbd://h/x --json', served('json')],
  ['--svg - nbd://h/x', served({ svgPath: '-' })],
  ['--debug nbd://h/x', { ...served('text'), verbosity: { verbose: true, debug: true } }],
])('%s', (line, expected) => {
  expect(parseMap(line)).toEqual(expected);
});

test.each([
  ['', 'mapping: FILE is missing'],
  ['--json --svg a.svg disk.raw', 'options --json and --svg: only one of them at a time'],
  ['--svg', 'option --svg: PICTURE is missing'],
  ['--svg= disk.raw', 'option --svg: an empty text is not a path'],
  ['-U nbd://h', 'option --force-share: it is for images, not for a URI'],
  ['a b', "mapping: 'b' is one operand too many"],
])('%s is refused', (line, message) => {
  expect(parseMap(line)).toEqual({ kind: 'usage-error', message });
});

test.each([
  ['-h', 'help'],
  ['--help', 'help'],
  ['-V', 'version'],
  ['--version', 'version'],
])('%s', (line, kind) => {
  expect(parseMap(line)).toMatchObject({ kind, text: expect.stringMatching(/^tsnbd /) });
});
