import type { CheckOptions } from '../image/check-image.js';
import { UsageError } from './errors.js';
import { IMAGE_CHECK_STATUSES } from './exit-status.js';
import type { OptionTable, Program } from './option-table.js';
import { fileName, wordOf } from './option-values.js';
import { type Answer, type Given, parse } from './parse.js';
import { sourceOptions } from './source-options.js';
import { helpOptions } from './telling-options.js';

export interface CheckAction {
  readonly kind: 'check';
  /** As it was typed. */
  readonly path: string;
  readonly options: CheckOptions;
  readonly json: boolean;
}

type Mode = 'check';
const MODES: readonly Mode[] = ['check'];

const options = {
  repair: {
    short: 'r',
    value: '<WHAT>',
    read: wordOf(['leaks', 'all'] as const, 'what can be repaired'),
    modes: MODES,
    help: 'Repair what can be: leaks gives back clusters that nothing uses, all also makes right what is counted too low or marked wrongly. Nobody may have the image in use.',
  },
  json: {
    modes: MODES,
    help: 'Print JSON with the keys of qemu-img check.',
  },
  ...sourceOptions(MODES),
  ...helpOptions(MODES),
} satisfies OptionTable<Mode>;

export const tsnbdCheckProgram: Program<Mode, typeof options> = {
  name: 'tsnbd check',
  summary: 'look for errors in a qcow2 image, and repair them',
  synopsis: ['[-r leaks|all] [--json] [-f FORMAT] [-U] FILE'],
  description: [
    'Looks through all tables of a qcow2 image: whether every cluster is counted as often as it is used, and whether entries say what they can. Each error is told on stderr, the first 1,000 of them. Nothing is changed without --repair. A repair that is cut off leaves the image no worse. It takes six bytes of memory for each cluster of the file; long holes take none.',
    'A leak is a cluster that is counted and not used: storage that is wasted, and no more. What is behind the image, and its data file, are not looked at. Errors are counted as qemu-img check does, and one more kind: a cluster that holds a table and something else, even if it is counted as often as it is used; a repair makes such an image safe to write to, but cannot know which of the two is right.',
  ],
  modes: { check: { title: 'checking an image' } },
  defaultMode: 'check',
  options,
  longWithOneDash: false,
  exitStatusNotes: [
    `"tsnbd check" has those of qemu-img check instead: ${Object.values(IMAGE_CHECK_STATUSES)
      .map(({ status, meaning }) => `${status} ${meaning}`)
      .join(', ')}.`,
  ],
  files: [],
  examples: [
    { does: 'Look whether an image is sound', command: 'tsnbd check disk.qcow2' },
    { does: 'Repair it', command: 'tsnbd check -r all disk.qcow2' },
  ],
  seeAlso: [],
};

/** Reads the arguments of tsnbd that follow `check`. */
export function parseTsnbdCheck(argv: readonly string[]): CheckAction | Answer {
  const answer = parse(tsnbdCheckProgram, argv, ({ values, operands }: Given<Mode, typeof options>) => {
    const path = operands.read('FILE', fileName);
    operands.end();
    const { repair, format } = values;
    const forceShare = values['force-share'] ?? false;
    if (repair !== undefined && forceShare)
      throw new UsageError('options --repair and --force-share: only one of them at a time');
    return { kind: 'check' as const, path, options: { repair, format, forceShare }, json: values.json ?? false };
  });
  return answer.kind === 'usage-error' ? { ...answer, status: IMAGE_CHECK_STATUSES.failed.status } : answer;
}
