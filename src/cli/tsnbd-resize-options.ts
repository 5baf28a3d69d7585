import type { OptionTable, Program } from './option-table.js';
import { device } from './option-values.js';
import { type Answer, type Given, parse } from './parse.js';
import { sizeBytes } from './sizes.js';
import { helpOptions } from './telling-options.js';

export interface ResizeAction {
  readonly kind: 'resize';
  readonly device: string;
  /** Absent: all that its server has. */
  readonly sizeBytes: number | undefined;
  readonly force: boolean;
}

type Mode = 'resize';
const MODES: readonly Mode[] = ['resize'];

const options = {
  force: { modes: MODES, help: 'Resize although the device becomes smaller.' },
  ...helpOptions(MODES),
} satisfies OptionTable<Mode>;

export const tsnbdResizeProgram: Program<Mode, typeof options> = {
  name: 'tsnbd resize',
  summary: 'give an attached remote device another size',
  synopsis: ['[--force] DEV [SIZE]'],
  description: [
    'DEV gets the size that its export has now on the server, or SIZE of it (in bytes, or with k, M, G, T, P or E behind it), in whole blocks; it may be in use. Refused while its server does not answer, and, without --force, for a size that is smaller. An attached image keeps its size.',
    'Grow the export first, then the device, then the file system on it; to shrink, the other way round. To grow, another connection is made, for servers go by the size that an export had when a client came: requests pause for some seconds, and those that the server has not answered are sent to it again. Beware: it may still do what it took from the first connection after what came by the next, so that a write comes to lie over a later one to the same place. What was written before is flushed first; rather grow a device while nothing is written to it, or behind a server that ends its requests with their connection. A device of ioctl, or without a process behind it, has only one, and cannot grow.',
  ],
  modes: { resize: { title: 'resizing a device' } },
  defaultMode: 'resize',
  options,
  longWithOneDash: false,
  exitStatusNotes: [],
  files: [],
  examples: [{ does: 'Use what was added to an export', command: 'tsnbd resize /dev/nbd0' }],
  seeAlso: [],
};

/** Reads the arguments of tsnbd that follow `resize`. */
export function parseTsnbdResize(argv: readonly string[]): ResizeAction | Answer {
  return parse(tsnbdResizeProgram, argv, ({ values, operands }: Given<Mode, typeof options>) => {
    const name = operands.read('DEV', device);
    const bytes = operands.at(0) === undefined ? undefined : operands.read('SIZE', sizeBytes);
    operands.end();
    return { kind: 'resize' as const, device: name, sizeBytes: bytes, force: values.force ?? false };
  });
}
