import { Command, Option } from 'commander';
import { about, UsageError } from './errors.js';

/**
 * One option of a program. Parsing, `--help`, the manual page and the house tests read the same row, so that a new option
 * is a new row and the place that uses its value.
 */
export interface OptionRow<Mode extends string = string> {
  /** One letter, without its dash. */
  readonly short?: string;
  /** What the value is called; in brackets an operand may stand for it. Absent: the option is a switch. */
  readonly value?: `<${string}>` | `[${string}]`;
  /** Checks a value and gives what it means; throws a UsageError that says what is wrong with it. */
  readonly read?: ((text: string) => unknown) & Partial<Pick<WordReader<unknown>, 'words'>>;
  /** May be given more than once, and each value counts; of other options the last one does. */
  readonly repeats?: true;
  /** Where the option has an effect; anywhere else it is refused. */
  readonly modes: readonly Mode[];
  /** A sentence or two for the user. */
  readonly help: string;
}

/** Reads a value that is one of a few words, which a shell can complete. */
export interface WordReader<Value> {
  (text: string): Value;
  readonly words: readonly string[];
}

/** An option of a program that ours takes the place of, which ours does not have. */
export interface RefusedOption {
  readonly short?: string;
  /** What the user is told: "TLS is not supported yet". */
  readonly why: string;
}

/** Keyed by the long name, without dashes. */
export type OptionTable<Mode extends string = string> = Readonly<Record<string, OptionRow<Mode>>>;

/** What was given: a switch is true, a value is what its row reads, and true where `[VALUE]` was left out. */
export type OptionValues<Table extends OptionTable> = {
  readonly [Long in keyof Table]?: Table[Long] extends { readonly read: (text: string) => infer Value }
    ? Table[Long] extends { readonly repeats: true }
      ? readonly Value[]
      : Table[Long] extends { readonly value: `[${string}]` }
        ? Value | true
        : Value
    : true;
};

/** One of the things a program does, chosen by the option `chosenBy`. */
export interface ProgramMode {
  readonly chosenBy?: string;
  /** "serving an image" */
  readonly title: string;
}

export interface Example {
  readonly command: string;
  readonly does: string;
}

/** A program, or a subcommand of one ('tsnbd serve'), as its user meets it. Texts are plain; `--help` and the manual page lay them out. */
export interface Program<Mode extends string = string, Table extends OptionTable<Mode> = OptionTable<Mode>> {
  readonly name: string;
  /** What it does, in a line. */
  readonly summary: string;
  /** Each without the program's name: options as typed, operands in capitals. */
  readonly synopsis: readonly string[];
  /** A paragraph each. */
  readonly description: readonly string[];
  /** What the manual page has a section of its own for; `--help` leaves it out. */
  readonly sections?: readonly { readonly title: string; readonly paragraphs: readonly string[] }[];
  /** What the first operand can be, where that is one of a few words. */
  readonly operandWords?: readonly string[];
  readonly modes: Readonly<Record<Mode, ProgramMode>>;
  /** What is done when no option chooses. */
  readonly defaultMode: Mode;
  readonly options: Table;
  /** Refused by name, with the reason; keyed by the long name. */
  readonly refused?: Readonly<Record<string, RefusedOption>>;
  /** Keyed by the word behind the program's name that chooses one; what is no such word is for the program itself. */
  readonly subcommands?: Readonly<Record<string, { readonly program: Program }>>;
  /** Whether `-name` is taken for `--name`, as getopt_long_only does. */
  readonly longWithOneDash: boolean;
  /** What its exit statuses mean, where that is not the table that most share. */
  readonly exitStatuses?: Readonly<Record<string, { readonly status: number; readonly meaning: string }>>;
  /** What its exit statuses mean beyond the table that both programs share. */
  readonly exitStatusNotes: readonly string[];
  readonly files: readonly { readonly path: string; readonly holds: string }[];
  readonly examples: readonly Example[];
  /** "nbd-client(8)" */
  readonly seeAlso: readonly string[];
}

/** 'tsnbd' of 'tsnbd serve': whose manual page and version it is. */
export function programName(name: string): string {
  return name.split(' ', 1)[0] ?? name;
}

/** The row of `long`, never a property that every object has. */
export function optionRow(table: OptionTable, long: string): OptionRow | undefined {
  return Object.hasOwn(table, long) ? table[long] : undefined;
}

/** 'DEV' of `<DEV>` or `[DEV]`. */
export function valueName(row: OptionRow): string | undefined {
  return row.value?.slice(1, -1);
}

/**
 * A commander command that knows the options of `table`, prints nothing, and throws instead of ending the process.
 * `valuesOf` gives the values once it has parsed.
 */
export function commandOf<Mode extends string, Table extends OptionTable<Mode>>(program: Program<Mode, Table>) {
  const command = new Command(program.name)
    .exitOverride()
    .configureOutput({ writeOut: () => {}, writeErr: () => {} })
    .helpOption(false)
    .allowExcessArguments();
  const options = Object.entries<OptionRow>(program.options).map(([long, row]) => {
    const flags = [row.short && `-${row.short}`, `--${long}`].filter(Boolean).join(', ');
    const option = new Option(row.value ? `${flags} ${row.value}` : flags, row.help);
    // An option whose name begins with "no-" is a switch of its own, not the opposite of another.
    option.negate = false;
    const { read, repeats } = row;
    const once = Object.values<ProgramMode>(program.modes).some(({ chosenBy }) => chosenBy === long);
    if (read !== undefined) {
      option.argParser<unknown>((text, previous) => {
        if (once && previous !== undefined) throw new UsageError(`option --${long}: given twice`);
        const value = about(`option --${long}`, () => read(text));
        return repeats === undefined ? value : [...((previous as unknown[] | undefined) ?? []), value];
      });
    }
    command.addOption(option);
    return { long, key: option.attributeName() };
  });
  const valuesOf = () => {
    const given = options.map(({ long, key }) => [long, command.getOptionValue(key)] as const);
    return Object.fromEntries(given.filter(([, value]) => value !== undefined)) as OptionValues<Table>;
  };
  return { command, valuesOf };
}
