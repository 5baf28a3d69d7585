import { spawnSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { EXIT_STATUSES } from '#tsnbd/cli/exit-status.js';
import { helpText } from '#tsnbd/cli/help-text.js';
import { manPage } from '#tsnbd/cli/man-page.js';
import { mountTsnbdProgram, parseMountTsnbd } from '#tsnbd/cli/mount-tsnbd-options.js';
import type { Program } from '#tsnbd/cli/option-table.js';
import { parseTsnbdClient, tsnbdClientProgram } from '#tsnbd/cli/tsnbd-client-options.js';
import { parseTsnbd, tsnbdProgram } from '#tsnbd/cli/tsnbd-options.js';
import { parseUmountTsnbd, umountTsnbdProgram } from '#tsnbd/cli/umount-tsnbd-options.js';

const BEFORE = ['NAME', 'SYNOPSIS', 'DESCRIPTION', 'OPTIONS'];
const BEHIND = ['EXIT STATUS', 'FILES', 'EXAMPLES', 'SEE ALSO'];

const programs = [
  {
    name: 'tsnbd',
    parse: parseTsnbd,
    program: tsnbdProgram,
    help: helpText(tsnbdProgram),
    page: manPage(tsnbdProgram, '9'),
    sections: [...BEFORE, 'COMMANDS', ...BEHIND],
    quoted: '"/dev/nbd0" or "nbd0"',
  },
  {
    name: 'tsnbd-client',
    parse: parseTsnbdClient,
    program: tsnbdClientProgram,
    help: helpText(tsnbdClientProgram),
    page: manPage(tsnbdClientProgram, '9'),
    sections: [...BEFORE, 'WHEN THE SERVER GOES AWAY', ...BEHIND],
    quoted: '"/dev/nbd0" or "nbd0"',
  },
  {
    name: 'mount.tsnbd',
    parse: parseMountTsnbd,
    program: mountTsnbdProgram,
    help: helpText(mountTsnbdProgram),
    page: manPage(mountTsnbdProgram, '9'),
    sections: [...BEFORE, 'MOUNT OPTIONS', 'OTHER OPTIONS', 'AT BOOT AND AT SHUTDOWN', ...BEHIND],
    quoted: '"nbd://HOST:PORT/NAME"',
  },
  {
    name: 'umount.tsnbd',
    parse: parseUmountTsnbd,
    program: umountTsnbdProgram,
    help: helpText(umountTsnbdProgram),
    page: manPage(umountTsnbdProgram, '9'),
    sections: [...BEFORE, ...BEHIND],
    quoted: '"/dev/nbd0"',
  },
];

/** The page as a reader sees it, and what groff complains of. */
function shown(page: string): { text: string; warnings: string } {
  const options = {
    input: page,
    encoding: 'utf8',
    env: { ...process.env, MANWIDTH: '200', MAN_KEEP_FORMATTING: '' },
  } as const;
  const { stdout, stderr } = spawnSync('man', ['--warnings', '-E', 'ascii', '-l', '-'], options);
  return { text: stdout, warnings: stderr };
}

describe.each(programs)('$name', ({ name, parse, program, help, page, sections, quoted }) => {
  const { text, warnings } = shown(page);

  test('--help and the manual page show every option and every exit status', () => {
    for (const [long, row] of Object.entries(program.options)) {
      const value = 'value' in row ? ` ${row.value.slice(1, -1)}` : '';
      const letter = 'short' in row ? `-${row.short}, ` : '';
      expect(help).toContain(`${letter}--${long}${value}`);
      expect(text).toMatch(new RegExp(`\\n {7}${letter}--${long}${value}\\s`));
    }
    const { exitStatuses = EXIT_STATUSES } = program as Program;
    for (const { status, meaning } of Object.values(exitStatuses)) {
      expect(help.replaceAll(/\n {6}/g, ' ')).toContain(`\n  ${String(status).padEnd(4)}${meaning}`);
      expect(text).toContain(`\n       ${String(status).padEnd(7)}${meaning}`);
    }
  });

  test('--help fits a terminal', () => {
    expect(help.split('\n').filter((line) => line.length > 80 || line !== line.trimEnd())).toEqual([]);
  });

  test('the manual page is one that man shows without a warning', () => {
    expect(warnings).toBe('');
    expect(text.split('\n').filter((line) => /^[A-Z]/.test(line) && !line.startsWith(name.toUpperCase()))).toEqual(
      sections,
    );
    expect(text).toContain(`${name} - ${program.summary}`);
    expect(text).toContain(quoted);
  });

  test('the examples are command lines that the program takes', () => {
    const typed = program.examples.flatMap(({ command }) => command.split(' && '));
    const ours = typed.filter((command) => command.startsWith(`${name} `));
    expect(ours.length).toBeGreaterThan(2);
    for (const command of ours) expect(parse(command.split(' ').slice(1)).kind, command).not.toBe('usage-error');
  });
});

describe.each(Object.entries(tsnbdProgram.subcommands ?? {}))('tsnbd %s', (word, { program }) => {
  const { text } = shown(manPage(tsnbdProgram, '9'));
  const commands = text.slice(text.indexOf('\nCOMMANDS\n'), text.indexOf('\nEXIT STATUS\n'));
  const entries = commands.slice(commands.indexOf(`\n   tsnbd ${word}\n`));

  test('is in the summary and in the manual page of tsnbd, with all that it takes', () => {
    const summary = helpText(tsnbdProgram);
    expect(summary).toMatch(new RegExp(`^ {2}${word} +.${program.summary.slice(1, 20)}`, 'm'));
    for (const line of program.synopsis) {
      expect(text).toContain(`\n       tsnbd ${word} ${line}\n`);
      expect(helpText(program)).toContain(`\n  tsnbd ${word} ${line}\n`);
    }
    for (const long of Object.keys(program.options)) expect(entries).toMatch(new RegExp(`--${long}[ ,.\n]`));
  });

  test('has a summary of its own, which fits a terminal and shows every option', () => {
    const help = helpText(program);
    for (const long of Object.keys(program.options)) expect(help).toContain(`--${long}`);
    expect(help.split('\n').filter((line) => line.length > 80 || line !== line.trimEnd())).toEqual([]);
    expect(help.trimEnd()).toMatch(/The manual page tsnbd\(8\) says more\.$/);
  });

  test('has examples that are command lines it takes', () => {
    expect(program.examples.length).toBeGreaterThan(0);
    for (const { command } of program.examples) {
      expect(parseTsnbd(command.split(' ').slice(1)).kind, command).toBe(word);
    }
  });
});

test('what roff would take for its own is shown as it stands', () => {
  const odd = `.dots, 'quotes', "double", back\\slashes, \`ticks\`, ^hats, ~tildes and --dashes`;
  const { text, warnings } = shown(manPage({ ...tsnbdProgram, description: [odd, odd] }, '9'));
  expect(warnings).toBe('');
  expect(text.split(odd)).toHaveLength(3);
});
