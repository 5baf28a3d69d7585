import { IMAGE_FORMATS } from '../image/image-format.js';
import { QCOW2_PREALLOCATIONS, RAW_PREALLOCATIONS } from '../image/preallocations.js';
import { CLUSTER_BITS_MAX, CLUSTER_BITS_MIN, COMPRESSIONS, REFCOUNT_ORDER_MAX } from '../image/qcow2/header.js';
import { about, UsageError } from './errors.js';
import { fileName, oneOf } from './option-values.js';
import { sizeBytes } from './sizes.js';

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
    value: RAW_PREALLOCATIONS.join('|'),
    read: (text: string) => oneOf(text, RAW_PREALLOCATIONS, 'a preallocation'),
    help: 'what storage the image takes at once: none (off, unless given), all of it (falloc), or all of it, with zeroes written (full)',
  },
} satisfies CreationTable;

const onOrOff = { value: 'on|off', read: (text: string) => oneOf(text, ['on', 'off'], 'a switch') } as const;

const qcow2 = {
  cluster_size: {
    value: 'BYTES',
    read: (text: string) => powerOf2(sizeBytes(text), CLUSTER_BITS_MIN, CLUSTER_BITS_MAX, 'a cluster size'),
    help: 'what is allocated at once, a power of two from 512 to 2M; 64K unless given',
  },
  extended_l2: { ...onOrOff, help: 'each cluster has 32 subclusters, which are allocated by themselves' },
  preallocation: {
    value: QCOW2_PREALLOCATIONS.join('|'),
    read: (text: string) => oneOf(text, QCOW2_PREALLOCATIONS, 'a preallocation'),
    help: 'what the image has from the start: nothing (off, unless given), all tables (metadata), storage for all of it too (falloc), or storage with zeroes written (full)',
  },
  compression_type: {
    value: COMPRESSIONS.join('|'),
    read: (text: string) => oneOf(text, COMPRESSIONS, 'a compression type'),
    help: 'how clusters are compressed by programs that compress; zlib unless given',
  },
  compat: {
    value: '0.10|1.1',
    read: (text: string) => oneOf(text, ['0.10', '1.1', 'v2', 'v3'], 'a version of the format'),
    help: 'the version of the format: 0.10 or v2 for programs of before 2012, 1.1 or v3 unless given',
  },
  backing_file: { value: 'FILE', read: fileName, help: 'the same as --backing' },
  backing_fmt: {
    value: IMAGE_FORMATS.join('|'),
    read: (text: string) => oneOf(text, IMAGE_FORMATS, 'an image format that can be opened'),
    help: 'the same as --backing-format',
  },
  data_file: {
    value: 'FILE',
    read: fileName,
    help: "the data are kept in a file of their own, which is made, too; a relative name begins at the image's folder",
  },
  data_file_raw: { ...onOrOff, help: 'the data file can be read as a raw image by itself' },
  lazy_refcounts: { ...onOrOff, help: 'programs may postpone refcounts, which are rebuilt after a crash' },
  refcount_bits: {
    value: 'NUMBER',
    read: (text: string) => powerOf2(Number(text), 0, REFCOUNT_ORDER_MAX, 'a width of refcounts'),
    help: 'how wide a refcount is, a power of two from 1 to 64; 16 unless given',
  },
} satisfies CreationTable;

/** The formats that images can be created in, and what `-o` may say of each. */
export const CREATION_TABLES = { raw, qcow2 } as const satisfies Readonly<Record<string, CreationTable>>;

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

function powerOf2(value: number, minBits: number, maxBits: number, meaning: string): number {
  const bits = Math.log2(value);
  if (Number.isInteger(bits) && bits >= minBits && bits <= maxBits) return value;
  throw new UsageError(`${value} is not ${meaning} (a power of two from ${2 ** minBits} to ${2 ** maxBits})`);
}
