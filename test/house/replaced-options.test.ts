import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { OptionRow, Program } from '#tsnbd/cli/option-table.js';
import { tsnbdClientProgram } from '#tsnbd/cli/tsnbd-client-options.js';
import { tsnbdProgram } from '#tsnbd/cli/tsnbd-options.js';
import { ROOT } from './source-files.js';

/** README's table: options of nbd-client, options of qemu-nbd, and what ours call them. */
const rows =
  readFileSync(join(ROOT, 'README.md'), 'utf8')
    .split('## From nbd-client and qemu-nbd')[1]
    ?.split('\n## ')[0]
    ?.split('\n')
    .filter((line) => /^\| (?!nbd-client|---)/.test(line))
    .map((line) =>
      line
        .split('|')
        .slice(1, 4)
        .map((cell) => cell.trim()),
    ) ?? [];

const optionsIn = (cell = '') => [...cell.matchAll(/`(--?[\w-]+)`/g)].map((match) => match[1] ?? '');
const spellings = (long: string, short?: string) => [
  ...(long.length > 1 ? [`--${long}`] : []),
  ...(short === undefined ? [] : [`-${short}`]),
];

const sides: readonly { name: string; column: number; program: Program; theirs: () => string[] }[] = [
  {
    name: 'tsnbd-client',
    column: 0,
    program: tsnbdClientProgram,
    // '[-block-size|-b block size]', 'nbd-client -name|-N name'
    theirs: () => {
      const usage = spawnSync('nbd-client', ['--help'], { encoding: 'utf8' }).stderr;
      const words = [...usage.matchAll(/(?<=[[ |])-(-?[a-z]\w*(?:-\w+)*)/gi)].map((match) => match[1] ?? '');
      return words.map((word) => (word.length > 1 ? `--${word.replace(/^-/, '')}` : `-${word}`));
    },
  },
  {
    name: 'tsnbd',
    column: 1,
    program: tsnbdProgram,
    // '  -p, --port=PORT   port to listen on'
    theirs: () => {
      const lines = execFileSync('qemu-nbd', ['--help'], { encoding: 'utf8' }).split('\n');
      return lines.flatMap((line) => /^ +((?:-\w, )?--[\w-]+)/.exec(line)?.[1]?.split(', ') ?? []);
    },
  },
];

describe.each(sides)('the table of README, and $name', ({ name, column, program, theirs }) => {
  const options = Object.entries<OptionRow>(program.options);
  const ours = options.flatMap(([long, { short }]) => spellings(long, short));
  const refused = Object.entries(program.refused ?? {}).map(([long, { short, why }]) => ({
    names: spellings(long, short),
    row: `refused: ${why}`,
  }));

  test('an option that is the same is there, one that is refused is refused with that reason', () => {
    for (const cells of rows) {
      for (const option of optionsIn(cells[column])) {
        const told = refused.find(({ names }) => names.includes(option))?.row ?? (ours.includes(option) ? 'taken' : '');
        expect([option, cells[2]?.startsWith('refused: ') ? cells[2] : 'taken']).toEqual([option, told]);
      }
    }
  });

  test('every option that we have or refuse stands in it', () => {
    const named = rows.flatMap((cells) => optionsIn(cells[column]));
    const own = rows.flatMap(([, , cell = '']) => [...cell.matchAll(/`([\w-]+) (--[\w-]+)`/g)]);
    const ofOurs = own.filter((match) => match[1] === name).map((match) => match[2] ?? '');
    const missing = options.filter(([long]) => ![...named, ...ofOurs].includes(`--${long}`)).map(([long]) => long);
    expect(missing).toEqual([]);
    expect(refused.flatMap(({ names }) => names).filter((each) => !named.includes(each))).toEqual([]);
    expect(ofOurs.filter((each) => !ours.includes(each) || named.includes(each))).toEqual([]);
  });

  test('every option that the other program tells of stands in it', () => {
    const named = rows.flatMap((cells) => optionsIn(cells[column]));
    expect(theirs().length).toBeGreaterThan(20);
    expect(theirs().filter((option) => !named.includes(option))).toEqual([]);
  });
});
