import { asMountSays } from './mount-status.js';
import { type MountAction, mountAction, mountRows, mountTsnbdProgram } from './mount-tsnbd-options.js';
import type { Program } from './option-table.js';
import { type Answer, parse } from './parse.js';

const options = mountRows();

export const tsnbdMountProgram: Program<'mount', typeof options> = {
  ...mountTsnbdProgram,
  name: 'tsnbd mount',
  summary: 'mount an export or an image, and attach it for that',
  synopsis: ['SPEC DIR [-sfv] [-o OPTIONS] [-t TYPE]'],
  description: [
    'What mount(8) does with a line of fstab of the type tsnbd, by hand: see mount.tsnbd(8), also for the options that -o takes. A plain umount(8) unmounts and detaches, where mount.tsnbd is installed ("tsnbd install"); "tsnbd umount" does anyway.',
  ],
  sections: [],
  files: [],
  examples: [
    { does: 'Mount a partition of an image', command: 'tsnbd mount disk.qcow2 /mnt -o partition=1' },
    { does: 'Mount an export', command: 'tsnbd mount nbd://192.0.2.7/backup /mnt -o ro' },
  ],
  seeAlso: [],
};

/** Reads the arguments of tsnbd that follow `mount`. */
export function parseTsnbdMount(argv: readonly string[]): MountAction | Answer {
  return asMountSays(parse(tsnbdMountProgram, argv, ({ values, operands }) => mountAction(values, operands)));
}
