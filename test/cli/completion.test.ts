import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { completionScripts } from '#tsnbd/cli/completion-scripts.js';
import type { OptionRow } from '#tsnbd/cli/option-table.js';
import { tsnbdClientProgram } from '#tsnbd/cli/tsnbd-client-options.js';
import { tsnbdProgram } from '#tsnbd/cli/tsnbd-options.js';

const scripts = completionScripts([tsnbdProgram, tsnbdClientProgram]);
const folder = mkdtempSync(join(tmpdir(), 'tsnbd-completion-'));
afterAll(() => rmSync(folder, { recursive: true }));
for (const [shell, script] of Object.entries(scripts)) writeFileSync(join(folder, shell), script);
const files = join(folder, 'files');
mkdirSync(files);
for (const name of ['image.raw', 'inform']) writeFileSync(join(files, name), '');

const subcommands = tsnbdProgram.subcommands ?? {};
const longs = (options: object) => Object.keys(options).map((long) => `--${long}`);

/** A command line up to where it is to be completed, and what is offered there; files are image.raw and inform. */
const cases: readonly { readonly line: string; readonly offers: readonly string[] }[] = [
  { line: 'tsnbd --', offers: longs(tsnbdProgram.options) },
  { line: 'tsnbd-client --', offers: longs(tsnbdClientProgram.options) },
  ...Object.entries(subcommands).map(([word, { program }]) => ({
    line: `tsnbd ${word} --`,
    offers: longs(program.options),
  })),
  { line: 'tsnbd se', offers: ['serve'] },
  { line: 'tsnbd inf', offers: ['info', 'inform'] },
  { line: 'tsnbd --read', offers: ['--read-only'] },
  { line: 'tsnbd --format ', offers: ['raw', 'qcow2'] },
  { line: 'tsnbd -r -f q', offers: ['qcow2'] },
  { line: 'tsnbd info -f q', offers: ['qcow2'] },
  { line: 'tsnbd info --is ro', offers: ['rotational'] },
  { line: 'tsnbd fstab ch', offers: ['check'] },
  { line: 'tsnbd completion z', offers: ['zsh'] },
  { line: 'tsnbd serve --port ', offers: [] },
  { line: 'tsnbd-client --block-size 1', offers: ['1024'] },
];
const expected = cases.map(({ line, offers }) => ({ line, offers: [...offers].sort() }));

/** `said` has the offers for each line, one on a line each, then the line END. */
function offersIn(said: string, lines = cases) {
  const parts = said.split('END\n').map((part) => part.split('\n').filter((offer) => offer !== ''));
  return lines.map(({ line }, index) => ({ line, offers: [...new Set(parts[index])].sort() }));
}

/** A shell that asks something, or never comes to say that it is ready, would be waited for without end. */
const LIMIT = { timeout: 50_000, killSignal: 'SIGKILL' } as const;

const run = (shell: string, script: string) =>
  execFileSync(shell, [...(shell === 'bash' ? ['--norc'] : []), '-c', script], {
    cwd: files,
    encoding: 'utf8',
    ...LIMIT,
  });

describe('bash', () => {
  /** Has _tsnbd called as bash does; COMPREPLY of each list of words, and END. */
  const completed = (...lines: readonly (readonly string[])[]) => {
    const calls = lines.map(
      (words) => `COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}) COMP_CWORD=${words.length - 1}
        _tsnbd; printf '%s\\n' "\${COMPREPLY[@]}" END`,
    );
    return run('bash', ['set -u', 'source ../bash', ...calls].join('\n'));
  };

  test('is offered commands, options, values and files', () => {
    expect(offersIn(completed(...cases.map(({ line }) => line.split(' '))))).toEqual(expected);
  });

  test('is offered letters too, values behind an equals sign, and no options behind two dashes', () => {
    const said = completed(
      ['tsnbd', 'map', '-'],
      ['/usr/bin/tsnbd', '--format', '='],
      ['tsnbd', 'check', '--repair', '=', 'l'],
      ['tsnbd', 'run', '--', '-'],
      ['other', '-'],
    );
    const letters = Object.values<OptionRow>(subcommands.map?.program.options ?? {}).flatMap(
      ({ short }) => short ?? [],
    );
    const [all = '', ...others] = said.split('END\n');
    expect(all.split('\n')).toEqual(expect.arrayContaining(['--json', ...letters.map((letter) => `-${letter}`)]));
    expect(others).toEqual(['raw\nqcow2\n', 'leaks\n', '', '', '']);
  });

  test('completes both programs, by files where nothing else is known', () => {
    const defined = ['tsnbd', 'tsnbd-client'].map((name) => `complete -o default -F _tsnbd ${name}\n`);
    expect(run('bash', 'source ../bash; complete -p')).toBe(defined.join(''));
  });
});

test('fish is offered commands, options, values and files', () => {
  const calls = cases.map(({ line }) => `complete -C '${line}' | string replace -r '\\t.*' ''; echo END`);
  expect(offersIn(run('fish', ['source ../fish', ...calls].join('\n')))).toEqual(expected);
});

test('zsh is offered commands, options, values and files', () => {
  // What compadd is given is written down instead of shown, in an interactive zsh on a terminal of its own.
  const few = cases.filter(({ line }) => /^tsnbd(-client --|.* (inf|q|ch|info --))$/.test(line)); // it takes its time
  const keys = few.map(({ line }) => `zpty -n -w z '${line}'$'\\t\\x18'; zpty -r -m z said '*READY*'`);
  const script = `
    zmodload zsh/zpty
    zpty z zsh -f -i
    zpty -w z 'PROMPT=; autoload -Uz compinit; compinit -u -D; source ../zsh'
    zpty -w z 'compadd() { local -a hits; builtin compadd -O hits "$@"; (($#hits == 0)) || print -l -- $hits >>../offers; return 1 }'
    zpty -w z 'next() { print END >>../offers; BUFFER=; print REA""DY }; zle -N next; bindkey "^X" next'
    ${keys.join('\n')}
    zpty -d z`;
  execFileSync('zsh', ['-f', '-c', script], { cwd: files, ...LIMIT });
  const offers = offersIn(readFileSync(join(folder, 'offers'), 'utf8'), few);
  expect(offers).toEqual(expected.filter(({ line }) => few.some((each) => each.line === line)));
  expect(offers).toHaveLength(6);
});
