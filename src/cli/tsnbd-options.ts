import type { ImageAttachRequest } from '../attach/attach-request.js';
import type { KernelApi } from '../kernel/nbd-device.js';
import type { Address } from '../transport/address.js';
import { type DetachAction, detachAction, detachOptions } from './detach-options.js';
import { UsageError } from './errors.js';
import { imageOptions, imageSettingsOf } from './image-options.js';
import { checkChoice, kernelApiOption, netlinkChoice, netlinkOptions } from './kernel-api-option.js';
import { MOUNT_STATUS_NOTE } from './mount-status.js';
import type { MountAction } from './mount-tsnbd-options.js';
import { nodeChoice, nodeOptions } from './node-options.js';
import type { OptionTable, OptionValues, Program } from './option-table.js';
import { description, device, deviceOrAuto, exportName, path, patienceSeconds } from './option-values.js';
import { type Answer, type Given, parse, type Verbosity, verbosityOf } from './parse.js';
import { DEAD_TIMEOUT_SECONDS } from './patience.js';
import { REFUSED_OF_QEMU_NBD } from './refused-options.js';
import { type ServeAction, servingOf, servingOptions, whereOf, whereOptions } from './serving-options.js';
import { swapOption } from './swap-option.js';
import { tellingOptions } from './telling-options.js';
import { type CheckAction, parseTsnbdCheck, tsnbdCheckProgram } from './tsnbd-check-options.js';
import { type CompletionAction, parseTsnbdCompletion, tsnbdCompletionProgram } from './tsnbd-completion-options.js';
import { type CreateAction, parseTsnbdCreate, tsnbdCreateProgram } from './tsnbd-create-options.js';
import { type FstabAction, parseTsnbdFstab, tsnbdFstabProgram } from './tsnbd-fstab-options.js';
import { type InfoAction, parseTsnbdInfo, tsnbdInfoProgram } from './tsnbd-info-options.js';
import { type InstallAction, parseTsnbdInstall, tsnbdInstallProgram } from './tsnbd-install-options.js';
import { type ListAction, parseTsnbdList, tsnbdListProgram } from './tsnbd-list-options.js';
import { type LsAction, parseTsnbdLs, tsnbdLsProgram } from './tsnbd-ls-options.js';
import { type MapAction, parseTsnbdMap, tsnbdMapProgram } from './tsnbd-map-options.js';
import { parseTsnbdMount, tsnbdMountProgram } from './tsnbd-mount-options.js';
import { parseTsnbdResize, type ResizeAction, tsnbdResizeProgram } from './tsnbd-resize-options.js';
import { parseTsnbdRestart, type RestartAction, tsnbdRestartProgram } from './tsnbd-restart-options.js';
import { parseTsnbdRun, type RunAction, tsnbdRunProgram } from './tsnbd-run-options.js';
import { parseTsnbdServe, tsnbdServeProgram } from './tsnbd-serve-options.js';
import { parseTsnbdStatus, type StatusAction, tsnbdStatusProgram } from './tsnbd-status-options.js';
import { parseTsnbdUmount, tsnbdUmountProgram } from './tsnbd-umount-options.js';
import type { UmountAction } from './umount-tsnbd-options.js';

/** What a tsnbd command line asks for; nothing has happened yet. */
export type TsnbdAction =
  | {
      readonly kind: 'attach';
      readonly request: ImageAttachRequest;
      readonly foreground: boolean;
      readonly verbosity: Verbosity;
    }
  | DetachAction
  | ServeAction
  | CreateAction
  | CheckAction
  | InfoAction
  | ListAction
  | { readonly kind: 'list-as-qemu'; readonly address: Address; readonly verbosity: Verbosity }
  | MapAction
  | RunAction
  | ResizeAction
  | LsAction
  | StatusAction
  | MountAction
  | InstallAction
  | FstabAction
  | UmountAction
  | RestartAction
  | CompletionAction
  | Answer;

type Mode = 'serve' | 'attach' | 'detach' | 'list';
const EVERY_MODE: readonly Mode[] = ['serve', 'attach', 'detach', 'list'];
const WITH_IMAGE: readonly Mode[] = ['serve', 'attach'];

/** '' is what a client gets that names no export. */
const DEFAULT_EXPORT = '';

/** What `tsnbd WORD …` does. An image that is called like one of them is typed as a path: ./serve */
const subcommands = {
  serve: { program: tsnbdServeProgram, parse: parseTsnbdServe },
  run: { program: tsnbdRunProgram, parse: parseTsnbdRun },
  create: { program: tsnbdCreateProgram, parse: parseTsnbdCreate },
  info: { program: tsnbdInfoProgram, parse: parseTsnbdInfo },
  check: { program: tsnbdCheckProgram, parse: parseTsnbdCheck },
  map: { program: tsnbdMapProgram, parse: parseTsnbdMap },
  list: { program: tsnbdListProgram, parse: parseTsnbdList },
  ls: { program: tsnbdLsProgram, parse: parseTsnbdLs },
  status: { program: tsnbdStatusProgram, parse: parseTsnbdStatus },
  resize: { program: tsnbdResizeProgram, parse: parseTsnbdResize },
  mount: { program: tsnbdMountProgram, parse: parseTsnbdMount },
  umount: { program: tsnbdUmountProgram, parse: parseTsnbdUmount },
  install: { program: tsnbdInstallProgram, parse: parseTsnbdInstall },
  fstab: { program: tsnbdFstabProgram, parse: parseTsnbdFstab },
  restart: { program: tsnbdRestartProgram, parse: parseTsnbdRestart },
  completion: { program: tsnbdCompletionProgram, parse: parseTsnbdCompletion },
} as const;

const options = {
  connect: {
    short: 'c',
    value: '<DEV>',
    read: deviceOrAuto,
    modes: ['attach'],
    help: 'Attach IMAGE as the block device DEV, "/dev/nbd0" or "nbd0", and return when it and its partitions can be used. With auto for DEV the kernel chooses a free device, or makes one, and its name is printed.',
  },
  disconnect: {
    short: 'd',
    value: '[DEV]',
    read: device,
    modes: ['detach'],
    help: 'Detach DEV: refused while a file system, swap or another device uses it, done when the kernel says that it is free.',
  },
  ...detachOptions<Mode>(['detach']),
  nofork: {
    modes: ['attach'],
    help: 'Stay in the foreground until the device is detached.',
  },
  persist: {
    modes: ['attach'],
    help: 'Have a second process stand by, which goes on with the image when the one that serves it is killed. By netlink only; a qcow2 image that is written to needs --cache=writethrough or directsync.',
  },
  'dead-timeout': {
    value: '<SECONDS>',
    read: patienceSeconds,
    modes: ['attach'],
    help: `How long requests wait when the process that serves the image was killed; then they fail, until another goes on (--persist, "tsnbd restart"). Unless given, ${DEAD_TIMEOUT_SECONDS} with --persist, and not at all without it. Without --persist nobody is there to end what was sent to that process already: it waits until "tsnbd restart" or until the device is detached.`,
  },
  ...kernelApiOption<Mode>(['attach']),
  ...netlinkOptions<Mode>(['attach']),
  ...nodeOptions<Mode>(['attach']),
  ...swapOption<Mode>(['attach']),
  ...imageOptions(WITH_IMAGE),
  ...servingOptions<Mode>(['serve']),
  ...whereOptions<Mode>(['serve', 'list']),
  list: {
    short: 'L',
    modes: ['list'],
    help: 'Print the exports of the server that listens there, and what it tells of them, in the shape of qemu-nbd.',
  },
  'export-name': {
    short: 'x',
    value: '<NAME>',
    read: exportName,
    modes: ['serve'],
    help: 'Serve IMAGE as the export NAME; unless given, as the default export, for clients that name none.',
  },
  description: {
    short: 'D',
    value: '<TEXT>',
    read: description,
    modes: ['serve'],
    help: 'Describe the export in the list of exports.',
  },
  ...tellingOptions(EVERY_MODE, WITH_IMAGE, ['list', 'serve']),
} satisfies OptionTable<Mode>;

export const tsnbdProgram: Program<Mode, typeof options> = {
  name: 'tsnbd',
  summary: 'attach disk images as network block devices, and serve them',
  synopsis: [
    '-c DEV [-f FORMAT] [-r] [--nofork | --persist] IMAGE',
    '-d DEV [--release | --force]',
    '[-b ADDR] [-p PORT] [-f FORMAT] [-r] [-e NUM] [-t] IMAGE',
    '-k PATH [-f FORMAT] [-r] [-e NUM] [-t] IMAGE',
    '-L [-b ADDR] [-p PORT]',
    '-L -k PATH',
  ],
  description: [
    'With --connect, IMAGE becomes the block device DEV of this machine, served by a process in the background until it is detached with --disconnect.',
    'With neither, IMAGE is served to clients over the network block device (NBD) protocol, in the foreground. Without --persistent the server ends when its last client leaves. Nothing protects the connection: listen on another address than 127.0.0.1 only in a network that you trust.',
    'Where a service manager has started tsnbd with a socket that listens (LISTEN_FDS of 1, as a .socket unit of systemd does), that one is used; --bind, --port, --socket and --connect are errors then.',
    'IMAGE is a regular file or a block device, raw or qcow2. It is locked like QEMU locks its images, so that no second program writes to it.',
    'The backing file and the data file that a qcow2 image names are opened too: relative names from the folder of the image itself, absolute ones and those that lead out of that folder as they are, which is told. Only names of files are followed, and a backing file only if the image says what format it has.',
    'Of the tables that say where the clusters of a qcow2 image lie, 16 MiB at most are kept in memory, for each image of a chain: with clusters of 64 KiB those of 128 GiB of the disk. Refcounts take 4 MiB more where it is written to. A cluster that was dropped is not used again while a client has not read what it was sent of it, which is 16 MiB at most for each connection.',
    'What a client trims is given back to the file system that IMAGE lies on, unless --discard says otherwise.',
    'The background process of an attached device detaches it on SIGTERM, once no file system, swap or other device uses it, and reports to syslog. A device that was set up by ioctl goes down if that process is stopped, frozen or suspended; by netlink it waits. If the process is killed, a device of ioctl goes down and what waits for it fails; by netlink the device stays, its requests wait, and new ones fail, until it is detached, attached again, or restarted ("tsnbd restart DEV"). With --dead-timeout new ones wait for so long too, and with --persist a second process goes on at once, or has all that waits fail after that time if it cannot. A write that the killed process had begun is waited for, so that it cannot come to lie over a later one. What becomes of a remote device whose server goes away is in tsnbd-client(8), WHEN THE SERVER GOES AWAY.',
  ],
  modes: {
    attach: { chosenBy: 'connect', title: 'attaching an image' },
    detach: { chosenBy: 'disconnect', title: 'detaching a device' },
    list: { chosenBy: 'list', title: 'listing exports' },
    serve: { title: 'serving an image' },
  },
  defaultMode: 'serve',
  options,
  refused: REFUSED_OF_QEMU_NBD,
  subcommands,
  longWithOneDash: false,
  exitStatusNotes: [
    ...tsnbdInfoProgram.exitStatusNotes,
    ...tsnbdCheckProgram.exitStatusNotes,
    ...tsnbdRunProgram.exitStatusNotes,
    MOUNT_STATUS_NOTE,
  ],
  files: [
    { path: '/run/tsnbd/nbd0.json', holds: 'Who serves /dev/nbd0, and what.' },
    { path: '/run/tsnbd/nbd0.sock', holds: 'Where the process that serves /dev/nbd0 is asked to detach.' },
  ],
  examples: [
    {
      does: 'Attach a raw image and mount its first partition',
      command: 'tsnbd -c /dev/nbd0 -f raw disk.raw && mount /dev/nbd0p1 /mnt',
    },
    { does: 'Detach it', command: 'umount /mnt && tsnbd -d /dev/nbd0' },
    { does: 'Serve it to clients of this machine', command: 'tsnbd --bind=127.0.0.1 --port=4000 -f raw disk.raw' },
    {
      does: 'Serve it, read only, to any number of clients, until stopped',
      command: 'tsnbd -k /run/disk.sock -r -t -e 0 -f raw disk.raw',
    },
  ],
  seeAlso: ['tsnbd-client(8)', 'mount.tsnbd(8)', 'qemu-nbd(8)', 'mount(8)'],
};

/**
 * Reads the arguments of tsnbd (without node and script); `passedSockets` is how many listening sockets a service manager
 * has given to the process.
 */
export function parseTsnbd(argv: readonly string[], passedSockets = 0): TsnbdAction {
  const [word = '', ...rest] = argv;
  if (Object.hasOwn(subcommands, word)) return subcommands[word as keyof typeof subcommands].parse(rest, passedSockets);
  return parse(tsnbdProgram, argv, (given) => actionOf(given, passedSockets));
}

function actionOf({ mode, values, operands }: Given<Mode, typeof options>, passedSockets: number): TsnbdAction {
  if (mode === 'detach') {
    const given = values.disconnect === true ? undefined : values.disconnect;
    const dev = given ?? operands.read('DEV', device);
    operands.end();
    return detachAction(dev, values);
  }
  if (mode === 'list') {
    operands.end();
    if (passedSockets > 0)
      throw new UsageError('option --list: it has no effect with a socket that was passed (LISTEN_FDS)');
    return { kind: 'list-as-qemu', address: whereOf(values), verbosity: verbosityOf(values) };
  }
  const verbosity = verbosityOf(values);
  const imagePath = operands.read('IMAGE', path);
  operands.end();
  const settings = imageSettingsOf(values);
  if (values.connect !== undefined) {
    if (passedSockets > 0)
      throw new UsageError('option --connect: it has no effect with a socket that was passed (LISTEN_FDS)');
    const kernelApi = values['kernel-api'] ?? 'auto';
    const choice = { ...values.connect, kernelApi, ...netlinkChoice(values, kernelApi), ...nodeChoice(values) };
    checkChoice(choice);
    const locksMemory = values.swap ?? false;
    const persistence = persistenceOf(values, kernelApi);
    const request = { kind: 'image', imagePath, ...settings, ...choice, ...persistence, locksMemory } as const;
    return { kind: 'attach', request, foreground: values.nofork ?? false, verbosity };
  }
  const name = values['export-name'] ?? DEFAULT_EXPORT;
  const exports = [{ name, description: values.description, imagePath }];
  return { kind: 'serve', ...servingOf(values, passedSockets), exports, settings, verbosity };
}

function persistenceOf(values: OptionValues<typeof options>, kernelApi: KernelApi) {
  const { persist = false, 'dead-timeout': deadTimeout } = values;
  if (kernelApi === 'ioctl' && (persist || deadTimeout !== undefined)) {
    const option = persist ? 'persist' : 'dead-timeout';
    throw new UsageError(
      `option --${option}: it needs netlink; by ioctl a device ends with the process that serves it`,
    );
  }
  if (persist && values.nofork === true) {
    throw new UsageError(
      'option --persist: with --nofork it is for whoever started the command to start another process',
    );
  }
  if (persist && values['disconnect-on-close'] === true) {
    throw new UsageError('options --persist and --disconnect-on-close: only one of them at a time');
  }
  return { persist, deadTimeoutSeconds: deadTimeout ?? (persist ? DEAD_TIMEOUT_SECONDS : undefined) };
}
