import { UsageError } from './errors.js';
import { type OptionRow, optionRow, type Program, valueName } from './option-table.js';

/** What of a program decides how its options are spelled. */
type Spelling = Pick<Program, 'options' | 'refused' | 'longWithOneDash'>;

/**
 * Turns what users of getopt_long and getopt_long_only type into the spellings that commander takes: `-name foo` and
 * `--na foo` become `--name foo`. Values, operands and all that follows `--` stay as they are; an option of the program
 * is never mistaken for the value of the one before it, nor a value for an option.
 */
export function spellOut(program: Spelling, argv: readonly string[]): string[] {
  const spelled: string[] = [];
  for (let index = 0; index < argv.length; index++) {
    const argument = argv[index] ?? '';
    if (argument === '--') return [...spelled, ...argv.slice(index)];
    const option = optionIn(program, argument);
    spelled.push(option.spelled);
    if (option.awaits === undefined) continue;
    index++;
    const value = argv[index];
    if (value === undefined) throw new UsageError(`option ${argument}: ${option.awaits} is missing`);
    spelled.push(value);
  }
  return spelled;
}

interface SpelledArgument {
  readonly spelled: string;
  /** The name of the value that the next argument is. */
  readonly awaits: string | undefined;
}

function optionIn(program: Spelling, argument: string): SpelledArgument {
  if (argument.startsWith('--')) {
    return longOption(program, argument, argument.slice(2)) ?? { spelled: argument, awaits: undefined };
  }
  if (!argument.startsWith('-') || argument === '-') return { spelled: argument, awaits: undefined };
  // Like getopt_long_only: a single known letter is the short option, anything else is first looked for as a long name.
  const isLong = program.longWithOneDash && argument.length > 2;
  const long = isLong ? longOption(program, argument, argument.slice(1)) : undefined;
  return long ?? { spelled: argument, awaits: valueOfLetters(program, argument) };
}

/** `name` or `name=value`, of which the name may be cut short as long as only one option begins so. */
function longOption(program: Spelling, argument: string, body: string): SpelledArgument | undefined {
  const [given = ''] = body.split('=', 1);
  const glued = body.slice(given.length);
  const long = fullName(program, argument, given);
  if (long === undefined) return undefined;
  const row = optionRow(program.options, long);
  if (glued !== '' && row?.value === undefined) throw new UsageError(`option --${long}: takes no value`);
  return { spelled: `--${long}${glued}`, awaits: glued === '' ? requiredValue(row) : undefined };
}

function fullName({ options, refused = {} }: Spelling, argument: string, given: string): string | undefined {
  if (given === '') return undefined;
  if (optionRow(options, given) !== undefined) return given;
  const candidates = [...Object.keys(options), ...Object.keys(refused)].filter((long) => long.startsWith(given));
  const one = candidates.length === 1 ? candidates[0] : candidates.find((long) => long === given);
  if (one !== undefined && Object.hasOwn(refused, one)) throw new UsageError(`option --${one}: ${refused[one]?.why}`);
  if (candidates.length < 2) return one;
  throw new UsageError(`option ${argument}: could be ${candidates.map((long) => `--${long}`).join(' or ')}`);
}

/** Letters behind one dash, the last of which may have its value glued to it: `-vb4096`. */
function valueOfLetters({ options, refused = {} }: Spelling, argument: string): string | undefined {
  const letters = [...argument.slice(1)];
  for (const [index, letter] of letters.entries()) {
    const row = Object.values(options).find(({ short }) => short === letter);
    if (row === undefined) {
      const why = Object.values(refused).find(({ short }) => short === letter)?.why;
      if (why !== undefined) throw new UsageError(`option -${letter}: ${why}`);
      throw new UsageError(`unknown option '-${letter}'${letters.length > 1 ? ` in ${argument}` : ''}`);
    }
    if (row.value !== undefined) return index === letters.length - 1 ? requiredValue(row) : undefined;
  }
  return undefined;
}

function requiredValue(row: OptionRow | undefined): string | undefined {
  return row?.value?.startsWith('<') ? valueName(row) : undefined;
}
