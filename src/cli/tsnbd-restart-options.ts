import type { OptionTable, Program } from './option-table.js';
import { device } from './option-values.js';
import { type Answer, type Given, parse } from './parse.js';
import { helpOptions } from './telling-options.js';

export interface RestartAction {
  readonly kind: 'restart';
  readonly device: string;
}

type Mode = 'restart';
const MODES: readonly Mode[] = ['restart'];

const options = { ...helpOptions(MODES) } satisfies OptionTable<Mode>;

export const tsnbdRestartProgram: Program<Mode, typeof options> = {
  name: 'tsnbd restart',
  summary: 'replace the process that serves an image, while it is used',
  synopsis: ['DEV'],
  description: [
    'A new process goes on with the image of DEV, an update of tsnbd for instance: that of the tsnbd that is called. It is started first; then the old one ends between two requests, and the new one gets its socket and its open files, with their locks. No request fails, none is done twice, and none waits longer than it takes to open the image.',
    'If the new process cannot go on, the old one does, and the command fails. It fails, too, once something that was written could not be brought to stable storage, also if the process was killed since: only a detach ends that.',
    'If the process was killed, the new one opens the image anew and gives the kernel another connection; what was not answered is done again. It is opened once nothing of what the killed process wrote is still on its way. That is refused where something that was answered may be lost with the process: a qcow2 image that is written to, unless by --cache=writethrough or directsync, and what is written with --snapshot.',
    'Only an image that was attached by netlink can be restarted, and not one of --nofork, whose process is the one that somebody waits for. By ioctl the kernel ends a device with the thread that set it up, which sleeps in the old process (NBD_DO_IT in drivers/block/nbd.c).',
  ],
  modes: { restart: { title: 'restarting a process' } },
  defaultMode: 'restart',
  options,
  longWithOneDash: false,
  exitStatusNotes: [],
  files: [],
  examples: [{ does: 'Go on with an image by the new tsnbd, after an update', command: 'tsnbd restart /dev/nbd0' }],
  seeAlso: [],
};

/** Reads the arguments of tsnbd that follow `restart`. */
export function parseTsnbdRestart(argv: readonly string[]): RestartAction | Answer {
  return parse(tsnbdRestartProgram, argv, ({ operands }: Given<Mode, typeof options>) => {
    const name = operands.read('DEV', device);
    operands.end();
    return { kind: 'restart' as const, device: name };
  });
}
