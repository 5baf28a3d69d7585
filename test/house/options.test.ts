import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { manPage } from '#tsnbd/cli/man-page.js';
import { mountTsnbdProgram } from '#tsnbd/cli/mount-tsnbd-options.js';
import type { OptionTable } from '#tsnbd/cli/option-table.js';
import { tsnbdClientProgram } from '#tsnbd/cli/tsnbd-client-options.js';
import { tsnbdProgram } from '#tsnbd/cli/tsnbd-options.js';
import { umountTsnbdProgram } from '#tsnbd/cli/umount-tsnbd-options.js';
import { ROOT } from './source-files.js';

const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');
const { version } = JSON.parse(read('package.json'));

const pages = [
  { name: 'tsnbd', page: manPage(tsnbdProgram, version) },
  { name: 'tsnbd-client', page: manPage(tsnbdClientProgram, version) },
  { name: 'mount.tsnbd', page: manPage(mountTsnbdProgram, version) },
  { name: 'umount.tsnbd', page: manPage(umountTsnbdProgram, version) },
];
const subcommands = Object.entries(tsnbdProgram.subcommands ?? {});
const tables: readonly { readonly name: string; readonly options: OptionTable }[] = [
  { name: 'tsnbd', options: tsnbdProgram.options },
  ...subcommands.map(([word, { program }]) => ({ name: `tsnbd-${word}`, options: program.options })),
  { name: 'tsnbd-client', options: tsnbdClientProgram.options },
  { name: 'mount-tsnbd', options: mountTsnbdProgram.options },
  { name: 'umount-tsnbd', options: umountTsnbdProgram.options },
];

test.each(pages)('the manual page $name is the one that the option tables make', ({ name, page }) => {
  expect(read(`man/${name}.8`)).toBe(page);
});

describe.each(tables)('$name', ({ name, options }) => {
  test('every option is typed in a test of its program', () => {
    const text = read(`test/cli/${name}-options.test.ts`);
    const untested = Object.keys(options).filter((long) => !new RegExp(`[' ]--?${long}[=' ]`).test(text));
    expect(untested).toEqual([]);
  });

  test('every letter is typed in a test of its program', () => {
    const text = read(`test/cli/${name}-options.test.ts`);
    const letters = Object.values(options).flatMap(({ short }) => (short === undefined ? [] : [short]));
    expect(letters.filter((letter) => !new RegExp(`[' ]-${letter}[' ]`).test(text))).toEqual([]);
  });
});
