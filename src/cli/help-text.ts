import { EXIT_STATUSES } from './exit-status.js';
import { type OptionRow, type Program, programName, valueName } from './option-table.js';

const LINE_WIDTH = 80;
const MARGIN = '  ';
/** Where the second column of a list begins; a longer first column puts its text on the next line. */
const TEXT_COLUMN = 26;

/** What `--help` prints, without a newline at its end. */
export function helpText<Mode extends string>(program: Program<Mode>): string {
  const { name, subcommands = {} } = program;
  const statuses = Object.values(program.exitStatuses ?? EXIT_STATUSES).map(({ status, meaning }) =>
    entry(String(status), meaning, 6),
  );
  const sections = [
    [`${name}: ${program.summary}`],
    ['Usage:', ...program.synopsis.map((line) => `${MARGIN}${name} ${line}`)],
    ...commandList(name, subcommands),
    [
      'Options:',
      ...Object.entries<OptionRow>(program.options).map(([long, row]) => entry(spellings(long, row), row.help)),
    ],
    ['Exit status:', ...statuses, ...program.exitStatusNotes.map((note) => filled(note, MARGIN))],
    [
      'Examples:',
      ...program.examples.map(({ command, does }) => `${filled(`${does}:`, MARGIN)}\n${MARGIN}${MARGIN}${command}`),
    ],
    [`The manual page ${programName(name)}(8) says more.`],
  ];
  return sections.map((lines) => lines.join('\n')).join('\n\n');
}

/** 'Does things.' of the summary 'does things'. */
export function sentence(summary: string): string {
  return `${summary.charAt(0).toUpperCase()}${summary.slice(1)}.`;
}

/** A section of the subcommands, if there are any. */
function commandList(name: string, subcommands: NonNullable<Program['subcommands']>): readonly (readonly string[])[] {
  const entries = Object.entries(subcommands).map(([word, { program }]) => entry(word, sentence(program.summary)));
  if (entries.length === 0) return [];
  return [['Commands:', ...entries, filled(`"${name} COMMAND --help" tells the options of one.`, MARGIN)]];
}

/** `-p, --port PORT`; options without a letter keep the column of the long names. */
function spellings(long: string, row: OptionRow): string {
  const letter = row.short === undefined ? '    ' : `-${row.short}, `;
  const value = valueName(row);
  return `${letter}--${long}${value === undefined ? '' : ` ${value}`}`;
}

function entry(term: string, text: string, column = TEXT_COLUMN): string {
  const indent = ' '.repeat(column);
  const first = `${MARGIN}${term}`;
  if (first.length + 1 > column) return `${first}\n${filled(text, indent)}`;
  return first.padEnd(column) + filled(text, indent).slice(column);
}

/** `text` in lines of LINE_WIDTH at most, each behind `indent`; a word that is longer gets a line of its own. */
function filled(text: string, indent: string): string {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && indent.length + line.length + 1 + word.length > LINE_WIDTH) {
      lines.push(line);
      line = '';
    }
    line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line].map((each) => indent + each).join('\n');
}
