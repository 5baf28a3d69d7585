import { PREALLOCATIONS, type Preallocation } from '../image/preallocations.js';
import { about, UsageError } from './errors.js';
import { oneOf } from './option-values.js';

/** An option of `create -o`, which images of one format have. */
interface CreationOption {
  /** What may be given, for the user. */
  readonly value: string;
  /** Throws a UsageError that says what is wrong with a value. */
  readonly read: (text: string) => unknown;
  readonly help: string;
}

type CreationTable = Readonly<Record<string, CreationOption>>;

const raw = {
  preallocation: {
    value: PREALLOCATIONS.join('|'),
    read: (text: string): Preallocation => oneOf(text, PREALLOCATIONS, 'a preallocation'),
    help: 'what storage the image takes at once: none (off, unless given), all of it (falloc), or all of it, with zeroes written (full)',
  },
} satisfies CreationTable;

/** The formats that images can be created in, and what `-o` may say of each. */
export const CREATION_TABLES = { raw } as const satisfies Readonly<Record<string, CreationTable>>;

export type CreatableFormat = keyof typeof CREATION_TABLES;

/** What `-o` said, read by the rows of the format's table. */
export type CreationSettings<Format extends CreatableFormat> = {
  readonly [Name in keyof (typeof CREATION_TABLES)[Format]]?: (typeof CREATION_TABLES)[Format][Name] extends {
    readonly read: (text: string) => infer Value;
  }
    ? Value
    : never;
};

export const CREATABLE_FORMATS = Object.keys(CREATION_TABLES) as readonly CreatableFormat[];

/** `name=value`, several behind commas; two commas stand for one in a value. */
export function namesAndValues(text: string): readonly (readonly [name: string, value: string])[] {
  const commas = /,,/g;
  const parts = text.replace(commas, '\0').split(',');
  return parts.map((part) => {
    const at = part.indexOf('=');
    if (at < 1) throw new UsageError(`'${part.replaceAll('\0', ',')}' is not NAME=VALUE`);
    return [part.slice(0, at), part.slice(at + 1).replaceAll('\0', ',')];
  });
}

/** Of an option that is given twice the last counts, as for qemu-img. */
export function creationSettings<Format extends CreatableFormat>(
  format: Format,
  given: readonly (readonly [name: string, value: string])[],
): CreationSettings<Format> {
  const table: CreationTable = CREATION_TABLES[format];
  const read = given.map(([name, value]) => {
    const row = Object.hasOwn(table, name) ? table[name] : undefined;
    if (row === undefined) {
      throw new UsageError(
        `option --options: ${format} images have no '${name}', only ${Object.keys(table).join(', ')}`,
      );
    }
    return [name, about(`option --options: ${name}`, () => row.read(value))];
  });
  return Object.fromEntries(read);
}

/** The options of every format, in a sentence for the user. */
export function creationHelp(): string {
  const formats = Object.entries<CreationTable>(CREATION_TABLES).map(([format, table]) => {
    const options = Object.entries(table).map(([name, { value, help }]) => `${name}=${value}, ${help}`);
    return `For ${format}: ${options.join('; ')}.`;
  });
  return formats.join(' ');
}
