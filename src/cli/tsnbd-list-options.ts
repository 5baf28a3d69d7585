import type { Address } from '../transport/address.js';
import { UsageError } from './errors.js';
import type { OptionTable, Program } from './option-table.js';
import { nbdUri } from './option-values.js';
import { type Answer, type Given, parse, type Verbosity, verbosityOf } from './parse.js';
import { debugOption, helpOptions } from './telling-options.js';

export interface ListAction {
  readonly kind: 'list';
  readonly address: Address;
  readonly json: boolean;
  readonly verbosity: Verbosity;
}

type Mode = 'list';
const MODES: readonly Mode[] = ['list'];

const options = {
  json: { modes: MODES, help: 'Print JSON with the keys of nbdinfo --list.' },
  ...debugOption(MODES),
  ...helpOptions(MODES),
} satisfies OptionTable<Mode>;

export const tsnbdListProgram: Program<Mode, typeof options> = {
  name: 'tsnbd list',
  summary: 'describe every export of a server',
  synopsis: ['[--json] URI'],
  description: [
    'Each export that the server lists is described as "tsnbd info" does. One that the server lists and does not tell of, for it is there over TLS only or in use, is shown with the reason.',
  ],
  modes: { list: { title: 'listing exports' } },
  defaultMode: 'list',
  options,
  longWithOneDash: false,
  exitStatusNotes: [],
  files: [],
  examples: [{ does: 'See what a server has', command: 'tsnbd list nbd://192.0.2.7' }],
  seeAlso: [],
};

/** Reads the arguments of tsnbd that follow `list`. */
export function parseTsnbdList(argv: readonly string[]): ListAction | Answer {
  return parse(tsnbdListProgram, argv, ({ values, operands }: Given<Mode, typeof options>) => {
    const { address, exportName } = operands.read('URI', nbdUri);
    if (exportName !== '') throw new UsageError('URI: it names an export, and all of them are listed');
    operands.end();
    return { kind: 'list' as const, address, json: values.json ?? false, verbosity: verbosityOf(values) };
  });
}
