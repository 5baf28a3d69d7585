import { type OptionRow, type Program, valueName } from './option-table.js';

/** What a shell offers for a value. */
export type Offer =
  | { readonly kind: 'words'; readonly words: readonly string[] }
  /** Nodes of nbd devices. */
  | { readonly kind: 'devices' }
  | { readonly kind: 'files' }
  | { readonly kind: 'folders' }
  /** Only the user knows. */
  | { readonly kind: 'nothing' };

export interface CompletedOption {
  /** With their dashes, the short one first. */
  readonly spellings: readonly string[];
  /** Absent: it is a switch. */
  readonly value?: { readonly name: string; readonly offer: Offer; readonly optional: boolean };
  readonly repeats: boolean;
  /** A few words. */
  readonly does: string;
}

/** A program, or a subcommand, as what completes its command line in a shell sees it. Operands are files, or what is said. */
export interface CompletedCommand {
  /** 'tsnbd info' */
  readonly name: string;
  readonly does: string;
  readonly options: readonly CompletedOption[];
  /** What the first operand can be besides. */
  readonly words: readonly string[];
  /** Whether an operand may be a device. */
  readonly takesDevice: boolean;
  readonly subcommands: readonly CompletedCommand[];
}

export function completedCommand(program: Program): CompletedCommand {
  const subcommands = Object.values(program.subcommands ?? {}).map((each) => completedCommand(each.program));
  return {
    name: program.name,
    does: program.summary,
    options: Object.entries<OptionRow>(program.options).map(([long, row]) => completedOption(long, row)),
    words: program.operandWords ?? subcommands.map(({ name }) => lastWord(name)),
    takesDevice: program.synopsis.some((line) => /(?<!(^|[ [])--?[\w-]+[ =])\bDEV\b/.test(line)),
    subcommands,
  };
}

/** 'info' of 'tsnbd info' */
export function lastWord(name: string): string {
  return name.split(' ').at(-1) ?? name;
}

/** The program, and each of its subcommands. */
export function withSubcommands(command: CompletedCommand): readonly CompletedCommand[] {
  return [command, ...command.subcommands];
}

function completedOption(long: string, row: OptionRow): CompletedOption {
  const spellings = [...(row.short === undefined ? [] : [`-${row.short}`]), `--${long}`];
  const [does = ''] = row.help.split(/[.:;,]( |$)/, 1);
  const option = { spellings, repeats: row.repeats ?? false, does };
  const name = valueName(row);
  if (name === undefined) return option;
  return { ...option, value: { name, offer: offerOf(name, row), optional: row.value?.startsWith('[') ?? false } };
}

function offerOf(name: string, { read }: OptionRow): Offer {
  if (read?.words !== undefined) return { kind: 'words', words: read.words };
  if (name === 'DEV') return { kind: 'devices' };
  if (name === 'DIR') return { kind: 'folders' };
  return { kind: /^(FILE|PATH|PICTURE)$/.test(name) ? 'files' : 'nothing' };
}
