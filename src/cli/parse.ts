import { CommanderError } from 'commander';
import { spellOut } from './arguments.js';
import { about, UsageError } from './errors.js';
import { helpText } from './help-text.js';
import {
  commandOf,
  type OptionTable,
  type OptionValues,
  type Program,
  type ProgramMode,
  programName,
} from './option-table.js';
import { versionText } from './version.js';

/** What a command line asks for when no work follows; `message` lacks the program's name: `<what>: <why>`. */
export type Answer =
  | { readonly kind: 'help'; readonly text: string }
  | { readonly kind: 'version'; readonly text: string }
  | {
      readonly kind: 'usage-error';
      readonly message: string;
      /** Absent: that of the table. */
      readonly status?: number;
    };

/** How much the user wants to be told; debug includes verbose. */
export interface Verbosity {
  readonly verbose: boolean;
  readonly debug: boolean;
}

/** A command line whose every option is known, read, and has an effect in its mode. */
export interface Given<Mode extends string, Table extends OptionTable<Mode>> {
  readonly mode: Mode;
  readonly values: OptionValues<Table>;
  readonly operands: Operands;
}

/** What is left of a command line when its options are taken, read one behind the other. */
export class Operands {
  readonly #title: string;
  readonly #rest: string[];

  constructor(title: string, operands: readonly string[]) {
    this.#title = title;
    this.#rest = [...operands];
  }

  /** An operand not yet read, 0 being the next. */
  at(index: number): string | undefined {
    return this.#rest[index];
  }

  /** The next operand, as `read` understands it. */
  read<T>(name: string, read: (text: string) => T): T {
    const text = this.#rest.shift();
    if (text === undefined) throw new UsageError(`${this.#title}: ${name} is missing`);
    return about(name, () => read(text));
  }

  /** Takes out those that look so, wherever they stand. */
  takeLike(pattern: RegExp): readonly string[] {
    const taken = this.#rest.filter((operand) => pattern.test(operand));
    this.#rest.splice(0, this.#rest.length, ...this.#rest.filter((operand) => !pattern.test(operand)));
    return taken;
  }

  /** No operand may be left. */
  end(): void {
    const [next] = this.#rest;
    if (next !== undefined) throw new UsageError(`${this.#title}: '${next}' is one operand too many`);
  }
}

/** Reads `argv` (without node and script) as the command line of `program`; never throws for what a user can type. */
export function parse<Mode extends string, Table extends OptionTable<Mode>, Action>(
  program: Program<Mode, Table>,
  argv: readonly string[],
  actionOf: (given: Given<Mode, Table>) => Action,
): Action | Answer {
  try {
    const { command, valuesOf } = commandOf(program);
    command.parse(spellOut(program, argv), { from: 'user' });
    const values = valuesOf();
    if ('help' in values) return { kind: 'help', text: helpText(program) };
    if ('version' in values) return { kind: 'version', text: versionText(programName(program.name)) };
    const mode = modeOf(program, values);
    return actionOf({ mode, values, operands: new Operands(program.modes[mode].title, command.args) });
  } catch (error) {
    if (error instanceof UsageError) return { kind: 'usage-error', message: error.message };
    if (error instanceof CommanderError) return { kind: 'usage-error', message: plainMessage(error) };
    throw error;
  }
}

export function verbosityOf(values: { readonly verbose?: true; readonly debug?: true }): Verbosity {
  const debug = values.debug ?? false;
  return { verbose: debug || (values.verbose ?? false), debug };
}

/** `error: unknown option '--fork'\n(Did you mean --force?)` in one line, without the word that says nothing. */
function plainMessage(error: CommanderError): string {
  return error.message.replace(/^error: /, '').replaceAll('\n', ' ');
}

function modeOf<Mode extends string, Table extends OptionTable<Mode>>(
  program: Program<Mode, Table>,
  values: OptionValues<Table>,
): Mode {
  const modes = Object.entries<ProgramMode>(program.modes) as [Mode, ProgramMode][];
  const chosen = modes.filter(([, { chosenBy }]) => chosenBy !== undefined && chosenBy in values);
  if (chosen.length > 1) {
    throw new UsageError(
      `options ${chosen.map(([, { chosenBy }]) => `--${chosenBy}`).join(' and ')}: only one of them at a time`,
    );
  }
  const mode = chosen[0]?.[0] ?? program.defaultMode;
  for (const long of Object.keys(values)) {
    const allowed: readonly Mode[] = program.options[long]?.modes ?? [];
    if (allowed.includes(mode)) continue;
    const where = allowed.map((name) => program.modes[name].title).join(' or ');
    throw new UsageError(`option --${long}: it is for ${where}, and has no effect when ${program.modes[mode].title}`);
  }
  return mode;
}
