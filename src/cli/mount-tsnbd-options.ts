import { resolve } from 'node:path';
import type { MountTask } from '../mount/mount.js';
import { UsageError } from './errors.js';
import { fileSystemType, mountOptionsHelp, mountSettings, sourceRequest } from './mount-options.js';
import { MOUNT_STATUSES } from './mount-status.js';
import type { OptionTable, OptionValues, Program } from './option-table.js';
import { fileName, path } from './option-values.js';
import { type Answer, type Operands, parse, type Verbosity, verbosityOf } from './parse.js';
import { tellingOptions } from './telling-options.js';

export interface MountAction {
  readonly kind: 'mount';
  readonly task: MountTask;
  /** Nothing is to be done but to read the command line. */
  readonly fake: boolean;
  /** Something is mounted already, and only its options change. */
  readonly remount: boolean;
  /** A source that is not there is told, and no failure. */
  readonly nofail: boolean;
  readonly verbosity: Verbosity;
}

type Mode = 'mount';
const MODES: readonly Mode[] = ['mount'];

/** The options of mount(8) that a helper is called with. */
export function mountRows() {
  return {
    options: {
      short: 'o',
      value: '<OPTIONS>',
      read: (text: string) => text,
      repeats: true,
      modes: MODES,
      help: 'Mount options, commas between them: those of tsnbd, and those of the file system, which are handed on.',
    },
    types: {
      short: 't',
      value: '<TYPE>',
      read: typeOfFileSystem,
      modes: MODES,
      help: 'The file system: tsnbd.ext4 or ext4. With tsnbd it is what blkid finds.',
    },
    sloppy: { short: 's', modes: MODES, help: 'Pass over options that the file system does not know.' },
    fake: { short: 'f', modes: MODES, help: 'Only check SPEC and the options; attach and mount nothing.' },
    'no-mtab': {
      short: 'n',
      modes: MODES,
      help: 'Taken as mount(8) gives it. The entry by which umount(8) finds umount.tsnbd is written all the same.',
    },
    namespace: {
      short: 'N',
      value: '<NS>',
      read: fileName,
      modes: MODES,
      help: 'Mount in the mount namespace that the file NS leads to; the device is attached in this one.',
    },
    ...tellingOptions(MODES, MODES, MODES),
  } satisfies OptionTable<Mode>;
}

const options = mountRows();

export const mountTsnbdProgram: Program<Mode, typeof options> = {
  name: 'mount.tsnbd',
  summary: 'mount exports and images, as a line of fstab says',
  synopsis: ['SPEC DIR [-sfnv] [-N NS] [-o OPTIONS] [-t TYPE]'],
  description: [
    'mount(8) calls it for a line of fstab of the type tsnbd. SPEC is an NBD URI, "nbd://HOST:PORT/NAME" or "nbd+unix:///NAME" with the option socket=PATH, or the path of an image, raw or qcow2. It is attached as a block device that is free, and the file system on it, or on a partition of it, is mounted on DIR. A plain umount(8) unmounts it and detaches the device again.',
    'Mounts of several partitions of one export or image share one device; the last unmount detaches it. What is mounted already is no failure, and nothing is done. A mount that fails at any step leaves nothing attached.',
    'The process behind the device is a service of its own where systemd runs, and is stopped after the mount; elsewhere it is a process in the background.',
  ],
  sections: [
    { title: 'Mount options', paragraphs: mountOptionsHelp() },
    {
      title: 'Other options',
      paragraphs: [
        'ro opens an image for reading only, so that nothing is written to it, not even a journal; of a disk of a server it keeps the kernel from writing to the partition; a whole disk is mounted read-only, and a journal may be replayed first. Lines that share an image have to be all ro or none.',
        'With nofail a server that does not answer, or an image that is not there, is told and passed over with status 0; every other failure stays one.',
        '_netdev has to stand on each line whose server is reached by the network: systemd takes a line without it for a local file system, mounts it before the network is there, and ends in emergency mode when that fails. The file system itself is mounted with _netdev where SPEC is a URI, so that the network stays up until it is unmounted.',
        'remount changes the options of the file system, and nothing of how it is attached. noauto and x-systemd.automount work as in fstab(5). user and users have no effect: only root can attach a device.',
        'All that is no option of ours, and none that mount(8) or systemd deal with, is handed on to the file system.',
      ],
    },
    {
      title: 'At boot and at shutdown',
      paragraphs: [
        'The sixth field, passno, is 0: fsck(8) does not know the type, and systemd does not check what is no device; fsck=auto checks before each mount instead.',
        'Where an image lies on a file system that itself comes over the network, the line has _netdev and x-systemd.requires-mounts-for=PATH. "tsnbd install" puts a generator in its place that adds this, also for what PATH leads to by symbolic links, and the module, for every line of the type.',
        'At shutdown systemd unmounts, which detaches, and stops the network afterwards. A server that is gone keeps an unmount waiting; when the machine goes down it is cut off after 20 seconds.',
        'The unit tsnbd@nbd0.service attaches /dev/nbd0 without mounting it, as its line in /etc/nbdtab says, or, for an image, as /etc/tsnbd/nbd0.conf does, a line of OPTIONS= and the words that follow "tsnbd -c /dev/nbd0". Swap on it is a line of fstab with noauto,_netdev: the generator starts both when the network is there, for swap.target is reached before.',
        'Without systemd, "mount -a" at boot mounts the lines without _netdev, and "mount -a -O _netdev" the others when the network is up.',
        'A root file system on a network block device is not covered.',
      ],
    },
  ],
  modes: { mount: { title: 'mounting' } },
  defaultMode: 'mount',
  options,
  longWithOneDash: false,
  exitStatuses: MOUNT_STATUSES,
  exitStatusNotes: [],
  files: [
    { path: '/etc/tsnbd/nbd0.conf', holds: 'What tsnbd@nbd0.service attaches, an image.' },
    { path: '/run/tsnbd.lock', holds: 'Locks of mounts and unmounts that are under way.' },
    { path: '/run/tsnbd/nbd0.json', holds: 'Who holds /dev/nbd0, what it is, and whether it was attached for mounts.' },
  ],
  examples: [
    {
      does: 'Mount the first partition of an export, as a line of fstab would',
      command: 'mount.tsnbd nbd://192.0.2.7:4000/ /mnt/test1 -o _netdev,partition=1',
    },
    {
      does: 'Mount an image, for reading only',
      command: 'mount.tsnbd /srv/images/test01.img /mnt/test2 -o format=qcow2,partition=2,ro',
    },
    {
      does: 'Mount an XFS behind a unix socket',
      command: 'mount.tsnbd nbd+unix:///disk /mnt -t xfs -o socket=/run/nbd.sock',
    },
  ],
  seeAlso: ['umount.tsnbd(8)', 'tsnbd(8)', 'tsnbd-client(8)', 'mount(8)', 'fstab(5)', 'systemd.mount(5)'],
};

/** Reads the arguments of mount.tsnbd (without node and script). */
export function parseMountTsnbd(argv: readonly string[]): MountAction | Answer {
  return parse(mountTsnbdProgram, argv, ({ values, operands }) => mountAction(values, operands));
}

export function mountAction(values: OptionValues<typeof options>, operands: Operands): MountAction {
  const spec = operands.read('SPEC', fileName);
  const folder = operands.read('DIR', path);
  operands.end();
  const settings = mountSettings((values.options ?? []).join(','));
  const request = sourceRequest(spec, settings);
  const { own, inner, readOnly, remount, nofail, netdev } = settings;
  const type = values.types === 'tsnbd' ? undefined : values.types;
  if (own.fstype !== undefined && type !== undefined && own.fstype !== type) {
    throw new UsageError(`option fstype: it says ${own.fstype}, and --types ${type}`);
  }
  return {
    kind: 'mount',
    task: {
      request,
      folder,
      partition: own.partition,
      fsck: own.fsck ?? 'no',
      fileSystem: own.fstype ?? type,
      readOnly,
      options: inner,
      isNetwork: netdev || request.kind === 'remote',
      isSloppy: values.sloppy ?? false,
      namespace: values.namespace === undefined ? undefined : resolve(values.namespace),
    },
    fake: values.fake ?? false,
    remount,
    nofail,
    verbosity: verbosityOf(values),
  };
}

/** 'ext4' of 'tsnbd.ext4' and of 'ext4'; 'tsnbd' alone says nothing of it. */
function typeOfFileSystem(text: string): string {
  return fileSystemType(text.replace(/^tsnbd\./, ''));
}
