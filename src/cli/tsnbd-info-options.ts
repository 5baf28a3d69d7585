import { UsageError } from './errors.js';
import { QUESTION_STATUSES } from './exit-status.js';
import { exportQuestion } from './export-question.js';
import type { OptionTable, OptionValues, Program } from './option-table.js';
import { type Answer, type Given, parse, type Verbosity, verbosityOf } from './parse.js';
import { type Source, sourceOf, sourceOptions } from './source-options.js';
import { debugOption, helpOptions } from './telling-options.js';

export interface InfoAction {
  readonly kind: 'info';
  readonly source: Source;
  readonly json: boolean;
  /** And what is behind an image. */
  readonly backingChain: boolean;
  /** Nothing is printed: the exit status says whether it is so. */
  readonly question?: string;
  readonly verbosity: Verbosity;
}

type Mode = 'info';
const MODES: readonly Mode[] = ['info'];

const question = { value: '<WHAT>', read: exportQuestion, repeats: true, modes: MODES } as const;

const options = {
  json: {
    modes: MODES,
    help: 'Print JSON: of an image with the keys of qemu-img info, of an export with those of nbdinfo.',
  },
  'backing-chain': {
    modes: MODES,
    help: 'Describe the images behind an image too, each after the one that names it; in JSON as a list.',
  },
  is: {
    ...question,
    help: 'Tell by the exit status alone whether an export is WHAT: read-only, rotational, tls. The words of --can and --has may stand here, too, and these there; all are those of nbdinfo.',
  },
  can: {
    ...question,
    help: 'Tell by the exit status alone whether an export can WHAT: connect, read, write, trim, zero, fast-zero, flush, fua, cache, df, multi-conn, resize, block-status-payload.',
  },
  has: {
    ...question,
    help: 'Tell by the exit status alone whether the server of an export has WHAT: structured-reply, extended-headers.',
  },
  ...sourceOptions(MODES),
  ...debugOption(MODES),
  ...helpOptions(MODES),
} satisfies OptionTable<Mode>;

export const tsnbdInfoProgram: Program<Mode, typeof options> = {
  name: 'tsnbd info',
  summary: 'describe a disk image, or an export of a server',
  synopsis: [
    '[--json] [--backing-chain] [-f FORMAT] [-U] FILE',
    '[--json] URI',
    '--is WHAT | --can WHAT | --has WHAT URI',
  ],
  description: [
    'Of an image: its format, the size of the disk that it is, and the storage that it takes; of a qcow2 image also its backing file, snapshots, features and bitmaps. What is behind an image need not be there. Of an export, which a URI such as "nbd://HOST/NAME" leads to: size, flags, block sizes, metadata contexts and description. The server is asked as by a client that goes away again, so that one that ends with its last client stays.',
  ],
  modes: { info: { title: 'describing' } },
  defaultMode: 'info',
  options,
  longWithOneDash: false,
  exitStatusNotes: [
    `"tsnbd info" with --is, --can or --has: ${QUESTION_STATUSES.yes} if it is so, ${QUESTION_STATUSES.no} if it is not; if the command line makes no sense it is ${QUESTION_STATUSES.failed} then, and other failures are as above.`,
  ],
  files: [],
  examples: [
    { does: 'Describe an image', command: 'tsnbd info disk.raw' },
    { does: 'Describe an export', command: 'tsnbd info --json nbd://192.0.2.7/backup' },
    { does: 'Ask whether it can be written to', command: 'tsnbd info --can write nbd://192.0.2.7/backup' },
  ],
  seeAlso: [],
};

/** Reads the arguments of tsnbd that follow `info`. */
export function parseTsnbdInfo(argv: readonly string[]): InfoAction | Answer {
  const answer = parse(tsnbdInfoProgram, argv, ({ values, operands }: Given<Mode, typeof options>) => {
    const source = sourceOf(values, operands);
    operands.end();
    const backingChain = values['backing-chain'] ?? false;
    if (backingChain && source.kind === 'export')
      throw new UsageError('option --backing-chain: it is for images, not for a URI');
    return {
      kind: 'info' as const,
      source,
      json: values.json ?? false,
      backingChain,
      ...questionOf(values, source),
      verbosity: verbosityOf(values),
    };
  });
  // Who asks must not take a command line that makes no sense for a no.
  const asks = argv.some((word) => /^--(i|is|c|ca|can|ha|has)(=|$)/.test(word));
  return answer.kind === 'usage-error' && asks ? { ...answer, status: QUESTION_STATUSES.failed } : answer;
}

function questionOf(values: OptionValues<typeof options>, source: Source): Pick<InfoAction, 'question'> {
  const given = (['is', 'can', 'has'] as const).flatMap((long) =>
    (values[long] ?? []).map((question) => ({ long, question })),
  );
  const [first, second] = given;
  if (first === undefined) return {};
  const { long, question } = first;
  if (second !== undefined) throw new UsageError(`options --${long} and --${second.long}: one question at a time`);
  if (source.kind === 'image') throw new UsageError(`option --${long}: it is for a URI, not for images`);
  if (values.json) throw new UsageError(`options --${long} and --json: only one of them at a time`);
  return { question };
}
