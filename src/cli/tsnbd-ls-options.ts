import type { OptionTable, Program } from './option-table.js';
import { type Answer, type Given, parse } from './parse.js';
import { helpOptions } from './telling-options.js';

export interface LsAction {
  readonly kind: 'ls';
  readonly json: boolean;
}

type Mode = 'ls';
const MODES: readonly Mode[] = ['ls'];

const options = {
  json: {
    modes: MODES,
    help: 'Print JSON: a list, with the keys device, sizeBytes, state, readOnly, source, format, connections, kernelApi, pid and mounts.',
  },
  ...helpOptions(MODES),
} satisfies OptionTable<Mode>;

export const tsnbdLsProgram: Program<Mode, typeof options> = {
  name: 'tsnbd ls',
  summary: 'list the devices that are attached',
  synopsis: ['[--json]'],
  description: [
    "A line for each device: name, size, state, whether it can be written, what it is, image format, connections, kernel interface, process, and where it and its partitions are mounted. The state is connected, reconnecting when the connection is lost, dead when the server answers nobody, or configured: then it is another program's, or its process does not tell. Only root may ask that process. No device is opened.",
  ],
  modes: { ls: { title: 'listing devices' } },
  defaultMode: 'ls',
  options,
  longWithOneDash: false,
  exitStatusNotes: [],
  files: [],
  examples: [{ does: 'See what is attached', command: 'tsnbd ls' }],
  seeAlso: [],
};

/** Reads the arguments of tsnbd that follow `ls`. */
export function parseTsnbdLs(argv: readonly string[]): LsAction | Answer {
  return parse(tsnbdLsProgram, argv, ({ values, operands }: Given<Mode, typeof options>) => {
    operands.end();
    return { kind: 'ls' as const, json: values.json ?? false };
  });
}
