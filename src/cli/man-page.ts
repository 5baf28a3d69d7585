import { EXIT_STATUSES } from './exit-status.js';
import { sentence } from './help-text.js';
import { type OptionRow, optionRow, type Program, type ProgramMode, valueName } from './option-table.js';

/** The manual page of `program`, section 8, as man(7) macros; made by scripts/man.js and kept in man/. */
export function manPage<Mode extends string>(program: Program<Mode>, version: string): string {
  const { name } = program;
  const subcommands = Object.values(program.subcommands ?? {}).map((subcommand) => subcommand.program);
  const lines = [
    `.\\" Made from the option table of ${name} by scripts/man.js: change it there.`,
    `.TH ${escaped(name.toUpperCase())} 8 "" "tsnbd ${version}" "Network block devices"`,
    // Option names must stay whole: no hyphenation, no stretched lines.
    '.nh',
    '.ad l',
    '.SH NAME',
    `${escaped(name)} \\- ${plain(program.summary)}`,
    '.SH SYNOPSIS',
    ...synopsis([program, ...subcommands]),
    '.SH DESCRIPTION',
    ...paragraphs(program.description),
    '.SH OPTIONS',
    ...Object.entries<OptionRow<Mode>>(program.options).flatMap(([long, row]) => optionEntry(program, long, row)),
    ...(subcommands.length === 0 ? [] : ['.SH COMMANDS']),
    ...subcommands.flatMap((subcommand) => commandEntry(subcommand, program)),
    ...(program.sections ?? []).flatMap(({ title, paragraphs: texts }) => [
      `.SH ${escaped(title.toUpperCase())}`,
      ...paragraphs(texts),
    ]),
    '.SH EXIT STATUS',
    ...Object.values(program.exitStatuses ?? EXIT_STATUSES).flatMap(({ status, meaning }) =>
      entry(`.B ${status}`, meaning),
    ),
    ...program.exitStatusNotes.flatMap((note) => ['.PP', plain(note)]),
    '.SH FILES',
    ...program.files.flatMap(({ path, holds }) => entry(`.I ${escaped(path)}`, holds)),
    '.SH EXAMPLES',
    ...[program, ...subcommands].flatMap(({ examples }) =>
      examples.flatMap(({ command, does }) => example(command, does)),
    ),
    '.SH SEE ALSO',
    program.seeAlso.map((page) => reference(page)).join(',\n'),
  ];
  return `${lines.join('\n')}\n`;
}

function synopsis(programs: readonly Pick<Program, 'name' | 'synopsis'>[]): string[] {
  const usages = programs.flatMap(({ name, synopsis }) => synopsis.map((line) => ({ name, line })));
  return usages.flatMap(({ name, line }, index) => [
    ...(index > 0 ? ['.br'] : []),
    `.B ${escaped(name)}`,
    synopsisLine(line),
  ]);
}

/** A subcommand: in full only the options that the program itself has not, or not with that meaning. */
function commandEntry(subcommand: Program, { options }: Pick<Program, 'options'>): string[] {
  const rows = Object.entries<OptionRow>(subcommand.options);
  const own = rows.filter(([long, { help }]) => optionRow(options, long)?.help !== help);
  const shared = rows.filter((row) => !own.includes(row)).map(([long]) => `--${long}`);
  return [
    `.SS ${escaped(subcommand.name)}`,
    plain(sentence(subcommand.summary)),
    ...subcommand.description.flatMap((text) => ['.PP', plain(text)]),
    ...own.flatMap(([long, row]) => optionEntry(subcommand, long, row)),
    '.PP',
    plain(`Also, as above: ${shared.join(', ')}.`),
  ];
}

function optionEntry<Mode extends string>(program: Program<Mode>, long: string, row: OptionRow<Mode>): string[] {
  const value = valueName(row);
  const behind = value === undefined ? '' : ` \\fI${escaped(value)}\\fR`;
  const letter = row.short === undefined ? '' : `\\fB\\-${escaped(row.short)}\\fR, `;
  const modes = Object.entries<ProgramMode>(program.modes) as [Mode, ProgramMode][];
  const limited = row.modes.length < modes.length && !modes.some(([, { chosenBy }]) => chosenBy === long);
  const titles = row.modes.map((mode) => program.modes[mode].title).join(' or ');
  return entry(
    `${letter}\\fB\\-\\-${escaped(long)}\\fR${behind}`,
    limited ? `${row.help} Only when ${titles}.` : row.help,
  );
}

/** Options and literal words bold, what stands for something italic: `-d DEV [--force]`. */
function synopsisLine(line: string): string {
  return line.replace(
    /[^\s[\]|.]+/g,
    (word) => `\\f${/^[A-Z]+(=[A-Z]+)?$/.test(word) ? 'I' : 'B'}${escaped(word)}\\fR`,
  );
}

function entry(term: string, text: string): string[] {
  return ['.TP', term, plain(text)];
}

function example(command: string, does: string): string[] {
  return ['.PP', `${plain(does)}:`, '.PP', '.RS 4', '.EX', plain(command), '.EE', '.RE'];
}

function paragraphs(texts: readonly string[]): string[] {
  return texts.flatMap((text, index) => (index === 0 ? [plain(text)] : ['.PP', plain(text)]));
}

function reference(page: string): string {
  const [, name = page, section = ''] = /^(.*)(\(\d\))$/.exec(page) ?? [];
  return `\\fB${escaped(name)}\\fR${section}`;
}

/** A line of text: one that begins with a dot would be taken for a macro (an apostrophe, too, but it is escaped). */
function plain(text: string): string {
  return escaped(text).replace(/^(?=\.)/, '\\&');
}

/** Backslash, and the characters that man pages print as typographic ones unless they are escaped. */
function escaped(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll("'", '\\(aq')
    .replaceAll('`', '\\(ga')
    .replaceAll('^', '\\(ha')
    .replaceAll('~', '\\(ti')
    .replaceAll('"', '\\(dq');
}
