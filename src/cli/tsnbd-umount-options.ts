import { asMountSays } from './mount-status.js';
import type { Program } from './option-table.js';
import { type Answer, parse } from './parse.js';
import { type UmountAction, umountAction, umountRows, umountTsnbdProgram } from './umount-tsnbd-options.js';

const options = umountRows();

export const tsnbdUmountProgram: Program<'umount', typeof options> = {
  ...umountTsnbdProgram,
  name: 'tsnbd umount',
  summary: 'unmount what "tsnbd mount" or fstab mounted, and detach its device',
  synopsis: ['DIR [-flrv]'],
  description: [
    'The device is detached when nothing else uses it, and if it was attached by a mount: see umount.tsnbd(8). It does so also where umount(8) does not know of us.',
  ],
  files: [],
  examples: [{ does: 'Unmount and detach', command: 'tsnbd umount /mnt' }],
  seeAlso: [],
};

/** Reads the arguments of tsnbd that follow `umount`. */
export function parseTsnbdUmount(argv: readonly string[]): UmountAction | Answer {
  return asMountSays(parse(tsnbdUmountProgram, argv, ({ values, operands }) => umountAction(values, operands)));
}
