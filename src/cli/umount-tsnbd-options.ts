import { resolve } from 'node:path';
import type { PlainUnmount } from '../mount/programs.js';
import { MOUNT_STATUSES } from './mount-status.js';
import type { OptionTable, OptionValues, Program } from './option-table.js';
import { fileName, path } from './option-values.js';
import { type Answer, type Operands, parse, type Verbosity, verbosityOf } from './parse.js';
import { tellingOptions } from './telling-options.js';

export interface UmountAction {
  readonly kind: 'umount';
  readonly unmount: PlainUnmount;
  readonly verbosity: Verbosity;
}

type Mode = 'umount';
const MODES: readonly Mode[] = ['umount'];

/** The options of umount(8) that a helper is called with. */
export function umountRows() {
  return {
    lazy: {
      short: 'l',
      modes: MODES,
      help: 'Take it out of the tree of folders now; the device is detached when no program uses the file system any more.',
    },
    force: {
      short: 'f',
      modes: MODES,
      help: 'As for umount(8); and detach the device although it has no connection to its server.',
    },
    'read-only': { short: 'r', modes: MODES, help: 'Where it cannot be unmounted, make it read-only.' },
    'no-mtab': {
      short: 'n',
      modes: MODES,
      help: 'Taken as umount(8) gives it; the entry that mounting wrote is removed.',
    },
    types: {
      short: 't',
      value: '<TYPE>',
      read: fileName,
      modes: MODES,
      help: 'Taken as umount(8) gives it; what is mounted on DIR is known.',
    },
    namespace: {
      short: 'N',
      value: '<NS>',
      read: fileName,
      modes: MODES,
      help: 'Unmount in the mount namespace that the file NS leads to.',
    },
    ...tellingOptions(MODES, MODES, []),
  } satisfies OptionTable<Mode>;
}

const options = umountRows();

export const umountTsnbdProgram: Program<Mode, typeof options> = {
  name: 'umount.tsnbd',
  summary: 'unmount what mount.tsnbd mounted, and detach its device',
  synopsis: ['DIR [-flnrv] [-N NS] [-t TYPE]'],
  description: [
    'umount(8) calls it for what mount.tsnbd(8) mounted. The file system is unmounted; when nothing else uses the device behind it, "/dev/nbd0" say, and it was attached for mounts, it is detached: flushed, disconnected, and free when the command returns.',
    'What is busy stays mounted and attached, with status 32. A file system that is unmounted lazily still writes: its device is detached when no program uses it any more, by the process behind the device.',
    'An unmount that went past this program (umount -i, or one in another mount namespace) leaves the device attached until the next mount or unmount of a network block device.',
  ],
  modes: { umount: { title: 'unmounting' } },
  defaultMode: 'umount',
  options,
  longWithOneDash: false,
  exitStatuses: MOUNT_STATUSES,
  exitStatusNotes: [],
  files: [{ path: '/run/tsnbd.lock', holds: 'Locks of mounts and unmounts that are under way.' }],
  examples: [
    { does: 'Unmount and detach', command: 'umount.tsnbd /mnt/test1' },
    { does: 'The same, as users do it', command: 'umount /mnt/test1' },
    { does: 'Though a program still uses it', command: 'umount.tsnbd -l /mnt/test1' },
    { does: 'Tell the steps', command: 'umount.tsnbd -v /mnt/test2' },
  ],
  seeAlso: ['mount.tsnbd(8)', 'umount(8)'],
};

/** Reads the arguments of umount.tsnbd (without node and script). */
export function parseUmountTsnbd(argv: readonly string[]): UmountAction | Answer {
  return parse(umountTsnbdProgram, argv, ({ values, operands }) => umountAction(values, operands));
}

export function umountAction(values: OptionValues<typeof options>, operands: Operands): UmountAction {
  const folder = operands.read('DIR', path);
  operands.end();
  const { lazy = false, force = false, 'read-only': readOnly = false, namespace } = values;
  return {
    kind: 'umount',
    unmount: {
      folder,
      lazy,
      force,
      readOnly,
      namespace: namespace === undefined ? undefined : resolve(namespace),
    },
    verbosity: verbosityOf(values),
  };
}
