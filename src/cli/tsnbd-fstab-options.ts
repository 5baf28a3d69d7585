import { UsageError } from './errors.js';
import type { OptionTable, Program } from './option-table.js';
import { fileName, path, wordOf } from './option-values.js';
import { type Answer, type Given, parse } from './parse.js';
import { helpOptions } from './telling-options.js';

export type FstabAction =
  | {
      readonly kind: 'fstab';
      readonly what: 'add';
      readonly spec: string;
      readonly folder: string;
      readonly options: string;
      readonly file: string;
      /** Only the line is printed. */
      readonly dryRun: boolean;
    }
  | { readonly kind: 'fstab'; readonly what: 'check'; readonly file: string };

type Mode = 'fstab';
const MODES: readonly Mode[] = ['fstab'];
const COMMANDS = ['add', 'check'] as const;

const options = {
  options: {
    short: 'o',
    value: '<OPTIONS>',
    read: (text: string) => text,
    repeats: true,
    modes: MODES,
    help: 'For add: mount options, commas between them, as in fstab; those of tsnbd are in mount.tsnbd(8).',
  },
  fstab: { value: '<FILE>', read: path, modes: MODES, help: 'Another file than /etc/fstab.' },
  'dry-run': { modes: MODES, help: 'For add: print the line, and write nothing.' },
  ...helpOptions(MODES),
} satisfies OptionTable<Mode>;

export const tsnbdFstabProgram: Program<Mode, typeof options> = {
  name: 'tsnbd fstab',
  summary: 'write lines of fstab, and check them',
  synopsis: ['add SPEC DIR [-o OPTIONS] [--dry-run] [--fstab FILE]', 'check [--fstab FILE]'],
  description: [
    'add attaches SPEC, an NBD URI or an image, to see what is on it. Where there are several file systems it tells them, and partition=N has to be among OPTIONS; where there is one, it is taken. Then it adds the line, with _netdev where the source is a URI, to the end of the file; the file as it was stays beside it, as fstab.before-tsnbd. A mount point never gets a second line.',
    'check looks at each line of the type tsnbd: whether its options are right and _netdev is there (a line of a server without it ends the boot in emergency mode when the server is away), whether the source can be attached, has the format, the partition, and a file system; and whether mount.tsnbd, its interpreter and the module are there. What is wrong is told on a line each, and the exit status is 1.',
    'Both attach for reading only, and detach again what they attached.',
  ],
  operandWords: COMMANDS,
  modes: { fstab: { title: 'writing or checking fstab' } },
  defaultMode: 'fstab',
  options,
  longWithOneDash: false,
  exitStatusNotes: [],
  files: [],
  examples: [
    { does: 'Have an export mounted at boot', command: 'tsnbd fstab add nbd://192.0.2.7/ /mnt/test1 -o nofail' },
    { does: 'See whether all lines are right', command: 'tsnbd fstab check' },
  ],
  seeAlso: [],
};

/** Reads the arguments of tsnbd that follow `fstab`. */
export function parseTsnbdFstab(argv: readonly string[]): FstabAction | Answer {
  return parse(tsnbdFstabProgram, argv, ({ values, operands }: Given<Mode, typeof options>): FstabAction => {
    const what = operands.read('COMMAND', wordOf(COMMANDS, 'what can be done with fstab'));
    const file = values.fstab ?? '/etc/fstab';
    if (what === 'check') {
      operands.end();
      for (const long of ['options', 'dry-run'] as const) {
        if (values[long] !== undefined)
          throw new UsageError(`option --${long}: it is for add, and has no effect for check`);
      }
      return { kind: 'fstab', what, file };
    }
    const spec = operands.read('SPEC', fileName);
    const folder = operands.read('DIR', path);
    operands.end();
    return {
      kind: 'fstab',
      what,
      spec,
      folder,
      options: (values.options ?? []).join(','),
      file,
      dryRun: values['dry-run'] ?? false,
    };
  });
}
