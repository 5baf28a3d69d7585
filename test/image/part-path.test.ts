import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { shellWord } from '#tsnbd/image/file-name.js';
import { knownFormat } from '#tsnbd/image/image-chain.js';

const PLAIN = [
  'b.raw',
  "it's",
  "'; touch x; '",
  '$(touch x)',
  '`touch x`',
  '"',
  '\\',
  "\\'",
  'a b',
  '-b',
  'ü',
  '!1',
  '',
];
const CONTROLS = ["\n'; touch x; '", "\x1b[31m\\'; touch x #", '\x07', "a\tb\\'c", '\u0085', '\x7f7'];

function printed(shell: string, word: string, cwd = '/'): string {
  return execFileSync(shell, ['-c', `printf '%s' ${word}`], { encoding: 'utf8', cwd });
}

it.each(PLAIN)('the word %j of a shell is that text', (text) => {
  for (const shell of ['sh', 'bash']) expect(printed(shell, shellWord(text))).toBe(text);
});

it.each(CONTROLS)('the word %j is shown without what a terminal obeys, and does nothing else in any shell', (text) => {
  const word = shellWord(text);
  expect(word).not.toMatch(/\p{Cc}/u);
  expect(printed('bash', word)).toBe(text);
  const folder = mkdtempSync(join(tmpdir(), 'tsnbd-word-'));
  try {
    printed('sh', word, folder);
    expect(readdirSync(folder)).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it('what is advised for a backing file without a format can be pasted, for the image as the user named it', () => {
  const name = "b'; touch x; '";
  const said = () => knownFormat("some dir/it's.qcow2", name, undefined);
  expect(said).toThrow(`qemu-img rebase -u -F FORMAT -b ${shellWord(name)} ${shellWord("some dir/it's.qcow2")}`);
});
