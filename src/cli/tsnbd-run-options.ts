import type { AttachRequest } from '../attach/attach-request.js';
import { isNbdUri } from '../transport/uri.js';
import { UsageError } from './errors.js';
import { imageOptions, imageSettingsOf } from './image-options.js';
import { checkChoice, kernelApiOption, netlinkChoice, netlinkOptions } from './kernel-api-option.js';
import type { OptionTable, OptionValues, Program } from './option-table.js';
import { deviceOrAuto, nbdUri, path } from './option-values.js';
import { type Answer, type Given, type Operands, parse, type Verbosity, verbosityOf } from './parse.js';
import { DEAD_TIMEOUT_SECONDS } from './patience.js';
import { tellingOptions } from './telling-options.js';

export interface RunAction {
  readonly kind: 'run';
  readonly request: AttachRequest;
  /** A program and its words. */
  readonly command: readonly string[];
  readonly verbosity: Verbosity;
}

type Mode = 'run';
const MODES: readonly Mode[] = ['run'];

const options = {
  connect: {
    short: 'c',
    value: '<DEV>',
    read: deviceOrAuto,
    modes: MODES,
    help: 'Attach as the block device DEV; auto, the default, has the kernel choose one.',
  },
  ...kernelApiOption(MODES),
  ...netlinkOptions(MODES),
  ...imageOptions(MODES),
  ...tellingOptions(MODES, MODES, MODES),
} satisfies OptionTable<Mode>;

export const tsnbdRunProgram: Program<Mode, typeof options> = {
  name: 'tsnbd run',
  summary: 'attach an image or an export for as long as a command runs',
  synopsis: ['[-f FORMAT] [-r] [-c DEV] IMAGE -- COMMAND [ARGUMENT ...]', '[-c DEV] URI -- COMMAND [ARGUMENT ...]'],
  description: [
    'The device is attached, COMMAND is run with its name in the variable TSNBD_DEVICE ("/dev/nbd0"), and when it has ended, in whatever way, the device is detached. A SIGTERM or SIGHUP is passed on to COMMAND; ^C reaches it from the terminal, and this program waits for it.',
    'A device that COMMAND leaves mounted, or in use by swap or another device, stays attached, and this is told. One whose server is gone by then is cut off: what was not written yet is lost, which is told, and is a failure where COMMAND had none.',
  ],
  modes: { run: { title: 'running a command' } },
  defaultMode: 'run',
  options,
  longWithOneDash: false,
  exitStatusNotes: [
    "With run: the command's own, 128 and the number of the signal that ended it, 126 if it cannot be run, 127 if there is no such command.",
  ],
  files: [],
  examples: [
    {
      does: 'Make a file system in an image',
      command: 'tsnbd run -f raw disk.raw -- sh -c \'mkfs.ext4 "$TSNBD_DEVICE"\'',
    },
  ],
  seeAlso: [],
};

/** Reads the arguments of tsnbd that follow `run`. */
export function parseTsnbdRun(argv: readonly string[]): RunAction | Answer {
  const end = argv.includes('--') ? argv.indexOf('--') : argv.length;
  const command = argv.slice(end + 1);
  return parse(tsnbdRunProgram, argv.slice(0, end), ({ values, operands }: Given<Mode, typeof options>) => {
    const kernelApi = values['kernel-api'] ?? 'auto';
    const ofNetlink = netlinkChoice(values, kernelApi, 'once told');
    const choice = { device: undefined, ...values.connect, kernelApi, ...ofNetlink };
    const request: AttachRequest = { ...sourceOf(values, operands), ...choice, locksMemory: false };
    operands.end();
    checkChoice(choice);
    if (command.length === 0) throw new UsageError('COMMAND: it is missing; it stands behind --');
    return { kind: 'run' as const, request, command, verbosity: verbosityOf(values) };
  });
}

function sourceOf(values: OptionValues<typeof options>, operands: Operands) {
  const given = operands.at(0);
  if (given === undefined || !isNbdUri(given)) {
    const imagePath = operands.read('IMAGE', path);
    return {
      kind: 'image',
      imagePath,
      ...imageSettingsOf(values),
      persist: false,
      deadTimeoutSeconds: undefined,
    } as const;
  }
  for (const long of Object.keys(imageOptions(MODES))) {
    if (long in values) throw new UsageError(`option --${long}: it is for images, not for a URI`);
  }
  return {
    kind: 'remote',
    ...operands.read('URI', nbdUri),
    blockSizeBytes: undefined,
    requestTimeoutSeconds: 0,
    connections: 1,
    persist: 'where-possible',
    deadTimeoutSeconds: DEAD_TIMEOUT_SECONDS,
    retryLimitSeconds: undefined,
    unattended: false,
  } as const;
}
