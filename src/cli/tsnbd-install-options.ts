import type { OptionTable, Program } from './option-table.js';
import { path } from './option-values.js';
import { type Answer, type Given, parse } from './parse.js';
import { helpOptions } from './telling-options.js';

export interface InstallAction {
  readonly kind: 'install';
  /** What all paths are below; '' is the machine's own root. */
  readonly root: string;
  readonly uninstall: boolean;
  readonly dryRun: boolean;
}

type Mode = 'install' | 'uninstall';
const MODES: readonly Mode[] = ['install', 'uninstall'];

const options = {
  prefix: {
    value: '<DIR>',
    read: path,
    modes: MODES,
    help: 'Put everything below DIR instead of /, for a package or another root; the programs are still found where they are.',
  },
  uninstall: { modes: ['uninstall'], help: 'Remove what was put in place, and nothing else.' },
  'dry-run': { modes: MODES, help: 'Only tell what would be done.' },
  ...helpOptions(MODES),
} satisfies OptionTable<Mode>;

export const tsnbdInstallProgram: Program<Mode, typeof options> = {
  name: 'tsnbd install',
  summary: 'put in place what mounting by fstab needs',
  synopsis: ['[--prefix DIR] [--dry-run]', '--uninstall [--prefix DIR] [--dry-run]'],
  description: [
    'Puts in their places: mount.tsnbd and umount.tsnbd in /sbin, where mount(8) looks for them; for the module nbd, that it is loaded at boot and has partitions; the unit tsnbd@.service, and a generator that adds to the mount units which systemd makes of fstab; the manual pages; what completes command lines in bash, zsh and fish. A file is told on a line each. What is there already is written again only if it differs; done twice it changes nothing.',
    'A file that somebody else has put in such a place is an error, and nothing is done then. --uninstall leaves files that were changed since, and says so. What was installed is kept in /var/lib/tsnbd/installed.json.',
    'To be done again when Node or this program has moved.',
  ],
  modes: {
    install: { title: 'installing' },
    uninstall: { chosenBy: 'uninstall', title: 'uninstalling' },
  },
  defaultMode: 'install',
  options,
  longWithOneDash: false,
  exitStatusNotes: [],
  files: [],
  examples: [
    { does: 'See what would be done', command: 'tsnbd install --dry-run' },
    { does: 'Remove it again', command: 'tsnbd install --uninstall' },
  ],
  seeAlso: [],
};

/** Reads the arguments of tsnbd that follow `install`. */
export function parseTsnbdInstall(argv: readonly string[]): InstallAction | Answer {
  return parse(tsnbdInstallProgram, argv, ({ mode, values, operands }: Given<Mode, typeof options>) => {
    operands.end();
    return {
      kind: 'install' as const,
      root: values.prefix ?? '',
      uninstall: mode === 'uninstall',
      dryRun: values['dry-run'] ?? false,
    };
  });
}
