import { UsageError } from './errors.js';
import type { OptionTable, Program } from './option-table.js';
import { fileName } from './option-values.js';
import { type Answer, type Given, parse, type Verbosity, verbosityOf } from './parse.js';
import { type Source, sourceOf, sourceOptions } from './source-options.js';
import { debugOption, helpOptions } from './telling-options.js';

export interface MapAction {
  readonly kind: 'map';
  readonly source: Source;
  readonly verbosity: Verbosity;
  readonly form: 'text' | 'json' | { readonly svgPath: string };
}

type Mode = 'map';
const MODES: readonly Mode[] = ['map'];

const options = {
  json: {
    modes: MODES,
    help: 'Print JSON: of an image with the keys of qemu-img map, of an export with those of nbdinfo --map.',
  },
  svg: {
    value: '<PICTURE>',
    read: fileName,
    modes: MODES,
    help: 'Write a picture of the map to the file PICTURE, which a browser shows, instead of printing it.',
  },
  ...sourceOptions(MODES),
  ...debugOption(MODES),
  ...helpOptions(MODES),
} satisfies OptionTable<Mode>;

export const tsnbdMapProgram: Program<Mode, typeof options> = {
  name: 'tsnbd map',
  summary: 'show where data, zeroes and holes lie in a disk image or an export',
  synopsis: ['[--json] [--svg PICTURE] [-f FORMAT] [-U] FILE', '[--json] [--svg PICTURE] URI'],
  description: [
    'Each line has the offset and the length of a piece in bytes, a number, and what the number means: 0 is data, 1 a hole (no storage), 2 zeroes, 3 both. A server is asked for the metadata context base:allocation; one that has it not is an error.',
  ],
  modes: { map: { title: 'mapping' } },
  defaultMode: 'map',
  options,
  longWithOneDash: false,
  exitStatusNotes: [],
  files: [],
  examples: [
    { does: 'Show where the data lie in an export', command: 'tsnbd map nbd://192.0.2.7/backup' },
    { does: 'Draw it', command: 'tsnbd map --svg disk.svg disk.raw' },
  ],
  seeAlso: [],
};

/** Reads the arguments of tsnbd that follow `map`. */
export function parseTsnbdMap(argv: readonly string[]): MapAction | Answer {
  return parse(tsnbdMapProgram, argv, ({ values, operands }: Given<Mode, typeof options>) => {
    const { json, svg } = values;
    if (json && svg !== undefined) throw new UsageError('options --json and --svg: only one of them at a time');
    const source = sourceOf(values, operands);
    operands.end();
    const form = svg !== undefined ? { svgPath: svg } : json ? 'json' : 'text';
    return { kind: 'map' as const, source, form, verbosity: verbosityOf(values) };
  });
}
