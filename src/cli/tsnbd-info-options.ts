import { UsageError } from './errors.js';
import type { OptionTable, Program } from './option-table.js';
import { type Answer, type Given, parse } from './parse.js';
import { type Source, sourceOf, sourceOptions } from './source-options.js';
import { helpOptions } from './telling-options.js';

export interface InfoAction {
  readonly kind: 'info';
  readonly source: Source;
  readonly json: boolean;
  /** And what is behind an image. */
  readonly backingChain: boolean;
}

type Mode = 'info';
const MODES: readonly Mode[] = ['info'];

const options = {
  json: {
    modes: MODES,
    help: 'Print JSON: of an image with the keys of qemu-img info, of an export with those of nbdinfo.',
  },
  'backing-chain': {
    modes: MODES,
    help: 'Describe the images behind an image too, each after the one that names it; in JSON as a list.',
  },
  ...sourceOptions(MODES),
  ...helpOptions(MODES),
} satisfies OptionTable<Mode>;

export const tsnbdInfoProgram: Program<Mode, typeof options> = {
  name: 'tsnbd info',
  summary: 'describe a disk image, or an export of a server',
  synopsis: ['[--json] [--backing-chain] [-f FORMAT] [-U] FILE', '[--json] URI'],
  description: [
    'Of an image: its format, the size of the disk that it is, and the storage that it takes; of a qcow2 image also its backing file, snapshots, features and bitmaps. What is behind an image need not be there. Of an export, which a URI such as "nbd://HOST/NAME" leads to: size, flags, block sizes, metadata contexts and description. The server is asked as by a client that goes away again, so that one that ends with its last client stays.',
  ],
  modes: { info: { title: 'describing' } },
  defaultMode: 'info',
  options,
  longWithOneDash: false,
  exitStatusNotes: [],
  files: [],
  examples: [
    { does: 'Describe an image', command: 'tsnbd info disk.raw' },
    { does: 'Describe an export', command: 'tsnbd info --json nbd://192.0.2.7/backup' },
  ],
  seeAlso: [],
};

/** Reads the arguments of tsnbd that follow `info`. */
export function parseTsnbdInfo(argv: readonly string[]): InfoAction | Answer {
  return parse(tsnbdInfoProgram, argv, ({ values, operands }: Given<Mode, typeof options>) => {
    const source = sourceOf(values, operands);
    operands.end();
    const backingChain = values['backing-chain'] ?? false;
    if (backingChain && source.kind === 'export')
      throw new UsageError('option --backing-chain: it is for images, not for a URI');
    return { kind: 'info' as const, source, json: values.json ?? false, backingChain };
  });
}
