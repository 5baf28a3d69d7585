import { expect, test } from 'vitest';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';

const parseCompletion = (line: string) => parseTsnbd(['completion', ...line.split(' ').filter((word) => word !== '')]);

test.each([
  ['bash', { kind: 'completion', shell: 'bash' }],
  ['zsh', { kind: 'completion', shell: 'zsh' }],
  ['fish', { kind: 'completion', shell: 'fish' }],
  ['', { kind: 'usage-error', message: 'printing a completion: SHELL is missing' }],
  ['bash zsh', { kind: 'usage-error', message: "printing a completion: 'zsh' is one operand too many" }],
  [
    'csh',
    {
      kind: 'usage-error',
      message: "SHELL: 'csh' is not a shell whose command lines are completed (bash, zsh, fish)",
    },
  ],
])('%s', (line, expected) => {
  expect(parseCompletion(line)).toEqual(expected);
});

test.each([
  ['-h', 'help'],
  ['--help', 'help'],
  ['-V', 'version'],
  ['--version', 'version'],
])('%s', (line, kind) => {
  expect(parseCompletion(line).kind).toBe(kind);
});
