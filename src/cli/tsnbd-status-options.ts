import type { OptionTable, Program } from './option-table.js';
import { device } from './option-values.js';
import { type Answer, type Given, parse } from './parse.js';
import { helpOptions } from './telling-options.js';

export interface StatusAction {
  readonly kind: 'status';
  readonly device: string;
  readonly json: boolean;
}

type Mode = 'status';
const MODES: readonly Mode[] = ['status'];

const options = {
  json: { modes: MODES, help: 'Print JSON, with the same keys.' },
  ...helpOptions(MODES),
} satisfies OptionTable<Mode>;

export const tsnbdStatusProgram: Program<Mode, typeof options> = {
  name: 'tsnbd status',
  summary: 'tell all that is known of an attached device',
  synopsis: ['[--json] DEV'],
  description: [
    'What "tsnbd ls" tells, and of a device of ours: block size, flags by name, the time limits (to connect, of a request, of a dead connection), for how long it is attached and in its state, how often it was connected again; how many requests are under way and done; and how many writes our server could not do, which nobody counts of a remote device, and nobody knows of the time before its process was killed and replaced.',
  ],
  modes: { status: { title: 'telling of a device' } },
  defaultMode: 'status',
  options,
  longWithOneDash: false,
  exitStatusNotes: [],
  files: [],
  examples: [{ does: 'See how the connection of a device is', command: 'tsnbd status /dev/nbd0' }],
  seeAlso: [],
};

/** Reads the arguments of tsnbd that follow `status`. */
export function parseTsnbdStatus(argv: readonly string[]): StatusAction | Answer {
  return parse(tsnbdStatusProgram, argv, ({ values, operands }: Given<Mode, typeof options>) => {
    const name = operands.read('DEV', device);
    operands.end();
    return { kind: 'status' as const, device: name, json: values.json ?? false };
  });
}
