import type { RemoteAttachRequest } from '../attach/attach-request.js';
import type { KernelApi } from '../kernel/nbd-device.js';
import { type Address, DEFAULT_PORT } from '../transport/address.js';
import { connectionsOption } from './connections-option.js';
import { type DetachAction, detachAction, detachOptions } from './detach-options.js';
import { UsageError } from './errors.js';
import { CHECK_STATUSES } from './exit-status.js';
import { exportChoice, exportChoiceOptions } from './export-choice-options.js';
import { checkChoice, kernelApiOption, netlinkChoice, netlinkOptions } from './kernel-api-option.js';
import { nbdtabSays } from './nbdtab-options.js';
import { nodeChoice, nodeOptions } from './node-options.js';
import { takeOldOperands } from './old-operands.js';
import type { OptionTable, OptionValues, Program } from './option-table.js';
import { blockSizeBytes, device, deviceOrAuto, exportName, patienceSeconds, timeoutSeconds } from './option-values.js';
import { type Answer, type Given, Operands, parse, type Verbosity, verbosityOf } from './parse.js';
import { DEAD_TIMEOUT_SECONDS } from './patience.js';
import { REFUSED_OF_NBD_CLIENT } from './refused-options.js';
import { serverAddress, uriOperand } from './server-operands.js';
import { swapOption } from './swap-option.js';
import { tellingOptions } from './telling-options.js';
import { WHEN_THE_SERVER_GOES_AWAY } from './when-the-server-goes-away.js';

/** What a tsnbd-client command line asks for; nothing has happened yet. */
export type TsnbdClientAction =
  | {
      readonly kind: 'attach';
      readonly request: RemoteAttachRequest;
      readonly foreground: boolean;
      readonly verbosity: Verbosity;
      /** What the user should know all the same of how it was typed, or of nbdtab. */
      readonly notices?: readonly string[];
    }
  | DetachAction
  | { readonly kind: 'check'; readonly device: string }
  | { readonly kind: 'list'; readonly address: Address; readonly json: boolean; readonly verbosity: Verbosity }
  | Answer;

type Mode = 'attach' | 'detach' | 'check' | 'list';
const EVERY_MODE: readonly Mode[] = ['attach', 'detach', 'check', 'list'];
const WITH_SERVER: readonly Mode[] = ['attach', 'list'];

const options = {
  name: {
    short: 'N',
    value: '<NAME>',
    read: exportName,
    modes: ['attach'],
    help: 'The export to attach. Without it, or if NAME is empty, the default export of the server.',
  },
  'block-size': {
    short: 'b',
    value: '<BYTES>',
    read: blockSizeBytes,
    modes: ['attach'],
    help: 'The block size of the device: 512, 1024, 2048 or 4096. Without it 512, or more if the server asks for more.',
  },
  timeout: {
    short: 't',
    value: '<SECONDS>',
    read: timeoutSeconds,
    modes: ['attach'],
    help: 'When a request takes longer, the kernel gives its connection up: by netlink the request is sent again on the next one, or fails with --no-persist; by ioctl the device goes down. 0, or no such option, is no limit with one connection, and 30 seconds with several.',
  },
  ...exportChoiceOptions<Mode>(['attach']),
  ...connectionsOption<Mode>(['attach']),
  persist: {
    short: 'p',
    modes: ['attach'],
    help: 'Connect again when the connection is lost, until told to stop: the default by netlink. By ioctl there is no such thing, and it is refused. Called as nbd-client, only with this option.',
  },
  'no-persist': {
    modes: ['attach'],
    help: 'Do not connect again. By netlink no process stays behind the device: when the connection is lost, what was sent waits until --timeout or until the device is detached, and what comes then fails. With --nofork, and by ioctl, the device goes down.',
  },
  'dead-timeout': {
    short: 'T',
    value: '<SECONDS>',
    read: patienceSeconds,
    modes: ['attach'],
    help: `How long requests wait for a server that is gone, ${DEAD_TIMEOUT_SECONDS} unless given; then they fail, while connecting goes on. With 0 they fail at once. By netlink only.`,
  },
  'retry-limit': {
    value: '<SECONDS>',
    read: patienceSeconds,
    modes: ['attach'],
    help: 'Give the device up when there has been no connection for so long; without it, connecting goes on.',
  },
  unix: {
    short: 'u',
    modes: WITH_SERVER,
    help: 'HOST is the path of a unix socket, and there is no PORT.',
  },
  nofork: {
    short: 'n',
    modes: ['attach'],
    help: 'Stay in the foreground until the device is detached.',
  },
  ...kernelApiOption<Mode>(['attach']),
  ...netlinkOptions<Mode>(['attach']),
  ...nodeOptions<Mode>(['attach']),
  swap: { short: 's', ...swapOption<Mode>(['attach']).swap },
  nonetlink: {
    short: 'L',
    modes: ['attach', 'detach'],
    help: 'The same as --kernel-api=ioctl. Detaching works the same with and without.',
  },
  disconnect: {
    short: 'd',
    value: '<DEV>',
    read: device,
    modes: ['detach'],
    help: 'Detach DEV: refused while a file system, swap or another device uses it, done when the kernel says that it is free.',
  },
  ...detachOptions<Mode>(['detach']),
  check: {
    short: 'c',
    value: '<DEV>',
    read: device,
    modes: ['check'],
    help: 'Print the process that serves DEV; the exit status says whether DEV is attached.',
  },
  list: {
    short: 'l',
    modes: ['list'],
    help: 'Print the exports of the server.',
  },
  json: { modes: ['list'], help: 'Print all that the server tells of each, as JSON with the keys of nbdinfo --list.' },
  ...tellingOptions(EVERY_MODE, ['attach'], ['attach', 'list']),
} satisfies OptionTable<Mode>;

export const tsnbdClientProgram: Program<Mode, typeof options> = {
  name: 'tsnbd-client',
  summary: 'attach exports of a remote server as network block devices',
  synopsis: [
    'HOST [PORT] DEV [-N NAME] [-b BYTES] [-t SECONDS] [-C NUM] [-n]',
    '-u PATH DEV [-N NAME] [-b BYTES] [-t SECONDS] [-n]',
    'URI DEV [-b BYTES] [-t SECONDS] [-n]',
    'DEV [-n]',
    '-d DEV [--release | --force]',
    '-c DEV',
    '-l [--json] HOST [PORT]',
    '-l -u PATH',
    '-l URI',
  ],
  description: [
    `An export of the network block device (NBD) server at HOST becomes the block device DEV of this machine, "/dev/nbd0" or "nbd0". PORT is a number, ${DEFAULT_PORT} unless given. The command returns when the device and its partitions can be used; a process in the background holds the device until it is detached.`,
    'Where DEV is auto, by netlink the kernel chooses a free device, or makes one. Then its name, "/dev/nbd3", is all that is printed on standard output, or the node of the partition that --wait-partition waits for.',
    'A URI stands for host, port and name: "nbd://HOST:PORT/NAME" or "nbd+unix:///NAME?socket=PATH", in which a percent sign and two hexadecimal digits stand for a character that a URI cannot hold, and an IPv6 address is in brackets. A PATH that begins with %00 is the name of an abstract socket. The forms that QEMU had before, such as "nbd:HOST:PORT:exportname=NAME", are taken too.',
    'A DEV alone is looked up in /etc/nbdtab, a line of which is DEVICE HOST EXPORT [OPTIONS], as for nbd-client. Of its options there are port, bs, timeout, dead-timeout, conns, persist, swap, unix and no_optgo; they stand in the place of those of the command line.',
    'Options and operands come in any order. A long option may have one dash or two, and may be cut short as long as no other option begins the same.',
    'The background process detaches on SIGTERM, once no file system, swap or other device uses the device, and reports to syslog. Nothing protects the connection: use it only in a network that you trust.',
    'A device that was set up by netlink outlives its server: see WHEN THE SERVER GOES AWAY in the manual page. One of ioctl goes down with it, or when a request takes longer than --timeout: what waits for it fails, what was not written yet is lost.',
    'A device that was set up by ioctl goes down too if the background process is stopped, frozen, suspended or killed. One that was set up by netlink is held by the kernel: it works on, but if the process was killed nobody connects again; then what was sent waits until the device is detached or attached again.',
  ],
  sections: [{ title: 'When the server goes away', paragraphs: WHEN_THE_SERVER_GOES_AWAY }],
  modes: {
    attach: { title: 'attaching an export' },
    detach: { chosenBy: 'disconnect', title: 'detaching a device' },
    check: { chosenBy: 'check', title: 'checking a device' },
    list: { chosenBy: 'list', title: 'listing exports' },
  },
  defaultMode: 'attach',
  options,
  refused: REFUSED_OF_NBD_CLIENT,
  longWithOneDash: true,
  exitStatusNotes: [
    `With --check: ${CHECK_STATUSES.attached} if the device is attached, ${CHECK_STATUSES.notAttached} if it is not, ${CHECK_STATUSES.failed} if that could not be found out.`,
    'Called as nbd-client, every failure is 1, as it is there.',
  ],
  files: [
    { path: '/etc/nbdtab', holds: 'What is attached as which device.' },
    { path: '/run/tsnbd/nbd0.json', holds: 'Who holds /dev/nbd0, and what it is.' },
    { path: '/run/tsnbd/nbd0.sock', holds: 'Where the process that holds /dev/nbd0 is asked to detach.' },
  ],
  examples: [
    { does: 'See what a server has', command: 'tsnbd-client -l 192.0.2.7' },
    {
      does: 'Attach its export "backup" and mount it',
      command: 'tsnbd-client 192.0.2.7 /dev/nbd0 -N backup && mount /dev/nbd0 /mnt',
    },
    { does: 'The same by a URI', command: 'tsnbd-client nbd://192.0.2.7/backup /dev/nbd0' },
    { does: 'Attach over a unix socket', command: 'tsnbd-client -unix /run/disk.sock /dev/nbd0' },
    { does: 'Detach', command: 'umount /mnt && tsnbd-client -d /dev/nbd0' },
  ],
  seeAlso: ['tsnbd(8)', 'nbd-client(8)', 'nbd-server(1)', 'mount(8)'],
};

/** Reads the arguments of tsnbd-client (without node and script); `nbdtab` gives the text of /etc/nbdtab. */
export function parseTsnbdClient(
  argv: readonly string[],
  calledAs = 'tsnbd-client',
  nbdtab: () => string = () => '',
): TsnbdClientAction {
  return parse(tsnbdClientProgram, argv, (given) => actionOf(given, calledAs, nbdtab));
}

function actionOf(
  { mode, values, operands }: Given<Mode, typeof options>,
  calledAs: string,
  nbdtab: () => string,
): TsnbdClientAction {
  if (values.disconnect !== undefined) {
    operands.end();
    return detachAction(values.disconnect, values);
  }
  if (values.check !== undefined) {
    operands.end();
    return { kind: 'check', device: values.check };
  }
  const overUnix = values.unix ?? false;
  if (mode === 'list') {
    const server = uriOperand(operands, overUnix);
    if (server !== undefined && server.exportName !== '') {
      throw new UsageError('URI: it names an export, and all of them are listed');
    }
    const address = server?.address ?? serverAddress(operands, overUnix, operands.at(1) !== undefined);
    operands.end();
    return { kind: 'list', address, json: values.json ?? false, verbosity: verbosityOf(values) };
  }
  // As in nbd-client; but a host may be called so, too.
  const isNbdDevice = /^(\/dev\/)?nbd[0-9]+$/.test(operands.at(0) ?? '');
  if (isNbdDevice && operands.at(1) === undefined) {
    return fromNbdtab(values, operands.read('DEV', device), calledAs, nbdtab());
  }
  const old = takeOldOperands(operands, values);
  // As in nbd-client: the second operand is a port only if it is a number, else it is the device.
  const hasPort = /^[0-9]+$/.test(operands.at(1) ?? '');
  const server = uriOperand(operands, overUnix);
  if (server !== undefined && values.name !== undefined) {
    throw new UsageError('option --name: the URI says which export it is');
  }
  if (values.preinit && (values.name ?? server?.exportName ?? '') !== '') {
    throw new UsageError('option --name: with --preinit the server is not asked for an export');
  }
  const request = {
    kind: 'remote',
    address: server?.address ?? serverAddress(operands, overUnix, hasPort),
    exportName: server?.exportName ?? values.name ?? '',
    ...operands.read('DEV', deviceOrAuto),
    kernelApi: kernelApiOf(values),
    blockSizeBytes: old.blockSizeBytes,
    requestTimeoutSeconds: old.requestTimeoutSeconds ?? 0,
    connections: values.connections ?? 1,
    locksMemory: values.swap ?? false,
    ...exportChoice(values),
    ...persistenceOf(values, calledAs),
    ...netlinkChoice(values, kernelApiOf(values)),
    ...nodeChoice(values),
  } as const;
  operands.end();
  if (request.unattended && request.disconnectOnClose) {
    throw new UsageError('option --disconnect-on-close: with --no-persist nobody is there who does it');
  }
  checkChoice(request);
  const notices = old.notices.length === 0 ? {} : { notices: old.notices };
  return { kind: 'attach', request, foreground: values.nofork ?? false, verbosity: verbosityOf(values), ...notices };
}

/** What nbdtab says goes before the command line, as for nbd-client. */
function fromNbdtab(given: OptionValues<typeof options>, name: string, calledAs: string, text: string) {
  const { values: said, words, notices } = nbdtabSays(text, name, calledAs);
  const operands = new Operands(tsnbdClientProgram.modes.attach.title, words);
  const action = actionOf({ mode: 'attach', values: { ...given, ...said }, operands }, calledAs, () => '');
  return action.kind === 'attach' && notices.length > 0 ? { ...action, notices } : action;
}

function kernelApiOf(values: OptionValues<typeof options>): KernelApi {
  const given = values['kernel-api'];
  if (values.nonetlink === undefined) return given ?? 'auto';
  if (given === undefined || given === 'ioctl') return 'ioctl';
  throw new UsageError(`options --nonetlink and --kernel-api=${given}: only one of them at a time`);
}

/** nbd-client connects again only when it is told to. */
function persistenceOf(values: OptionValues<typeof options>, calledAs: string) {
  const { persist, 'no-persist': noPersist, 'dead-timeout': deadTimeout, 'retry-limit': retryLimit, preinit } = values;
  if (persist && noPersist) throw new UsageError('options --persist and --no-persist: only one of them at a time');
  const byIoctl = kernelApiOf(values) === 'ioctl';
  if (persist && byIoctl) {
    throw new UsageError('option --persist: it needs netlink; by ioctl a device that is in use cannot come back');
  }
  if (persist && preinit) throw new UsageError('options --persist and --preinit: such a server does not say who it is');
  const without = noPersist || (calledAs === 'nbd-client' && !persist) || byIoctl || preinit === true;
  for (const [option, value] of Object.entries({ 'dead-timeout': deadTimeout, 'retry-limit': retryLimit })) {
    if (value === undefined || !without) continue;
    throw new UsageError(`option --${option}: it has no effect ${byIoctl ? 'by ioctl' : 'without --persist'}`);
  }
  return {
    persist: without ? 'no' : persist ? 'required' : 'where-possible',
    unattended: without && !byIoctl && values.nofork === undefined,
    deadTimeoutSeconds: deadTimeout ?? DEAD_TIMEOUT_SECONDS,
    retryLimitSeconds: retryLimit,
  } as const;
}
