import type { RemoteAttachRequest } from '../attach/attach-request.js';
import type { KernelApi } from '../kernel/nbd-device.js';
import { type Address, DEFAULT_PORT } from '../transport/address.js';
import { type DetachAction, detachAction, detachOptions } from './detach-options.js';
import { UsageError } from './errors.js';
import { CHECK_STATUSES } from './exit-status.js';
import { checkChoice, kernelApiOption, netlinkChoice, netlinkOptions } from './kernel-api-option.js';
import { nbdtabSays } from './nbdtab-options.js';
import { nodeChoice, nodeOptions } from './node-options.js';
import type { OptionTable, OptionValues, Program } from './option-table.js';
import { blockSizeBytes, device, deviceOrAuto, exportName, patienceSeconds, timeoutSeconds } from './option-values.js';
import { type Answer, type Given, Operands, parse, type Verbosity, verbosityOf } from './parse.js';
import { DEAD_TIMEOUT_SECONDS } from './patience.js';
import { serverAddress, uriOperand } from './server-operands.js';
import { swapOption } from './swap-option.js';
import { tellingOptions } from './telling-options.js';

/** What a tsnbd-client command line asks for; nothing has happened yet. */
export type TsnbdClientAction =
  | {
      readonly kind: 'attach';
      readonly request: RemoteAttachRequest;
      readonly foreground: boolean;
      readonly verbosity: Verbosity;
      /** What the user should know of nbdtab, all the same. */
      readonly notices?: readonly string[];
    }
  | DetachAction
  | { readonly kind: 'check'; readonly device: string }
  | { readonly kind: 'list'; readonly address: Address }
  | Answer;

type Mode = 'attach' | 'detach' | 'check' | 'list';
const EVERY_MODE: readonly Mode[] = ['attach', 'detach', 'check', 'list'];
const WITH_SERVER: readonly Mode[] = ['attach', 'list'];

/** A section of the manual page. */
const WHEN_THE_SERVER_GOES_AWAY = [
  'By netlink the background process watches over the connection. When it is lost, it connects again, at first at once and then every second, until it is told to stop. Requests wait meanwhile, those that the server has not answered are sent to it again, and no program sees more than a pause: the outage, and some seconds. What happens is reported to syslog; "tsnbd ls" and "tsnbd status DEV" show it.',
  'The state "reconnecting" is a connection that is lost. "dead" is one that stands although the server, or its machine or the network, is silent: nothing that was sent is answered for 5 seconds, and a second connection gets no answer in 10 seconds. Such a connection is kept, for a server that was stopped goes on with it; it is given up when the server answers on the second one for 3 seconds and not on the first, or after --dead-timeout. A slow request alone is never a reason, except with a server that takes one client only, such as qemu-nbd without -e: it cannot answer the second one, so there --dead-timeout must be longer than the slowest request.',
  'Only the same export is attached again: smaller, or without a flag that the kernel relies on, it is refused, which is reported, and tried again. One that has grown is taken, and the device keeps its size ("tsnbd resize" gives it the rest). One of the same name and size that holds something else cannot be told from it.',
  'A server that was killed keeps what it had acknowledged. If its machine crashed or lost power, what was acknowledged and not flushed yet is lost there, but not known to be on this side: the next flush succeeds without it. After such a crash, unmount, detach, and check the file system. A server that makes every write durable before it answers (tsnbd serve --cache=writethrough) loses nothing.',
  'Three limits are set at every attach. To connect and negotiate: 10 seconds, each time. --timeout, of a request: 0, the default, is none; with another the kernel gives up a connection on which a request takes longer, and sends the request again on the next, so it must be longer than the slowest request (a flush of a busy disk can take a minute). --dead-timeout, of a connection: how long requests wait for a server that is gone; then they fail with an I/O error, and so do new ones, until there is a connection again. A file system usually becomes read-only by that. With 0 it happens at once.',
  '--retry-limit gives the device up after so long: it is detached, and what waits fails. --no-persist goes without all of this: no process stays behind the device, and when the connection is lost, what was sent to the server waits until --timeout or until the device is detached, while new requests fail.',
  'Without --force a device is not detached while it has no connection, because what was not written yet may still be. SIGTERM waits, too. If the background process itself is killed, the device works on, but nobody connects again; the next attach or detach of the device cleans up.',
  'Beware of a server that is not dead, only cut off or stopped: requests that it took from the first connection may be done after those of the next. A write that was sent again, and was followed by another to the same place, could then come to lie over that one. A server that was killed, or whose machine was restarted, cannot do that.',
  'A device that serves the root file system or swap needs more care than this: what connects again must not need a file that is on the device itself, such as the name service. Give the address of the server as a number.',
];

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
    help: 'The kernel gives the device up when a request takes longer; 0, or no such option, is no limit.',
  },
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
  ...tellingOptions(EVERY_MODE, ['attach']),
} satisfies OptionTable<Mode>;

export const tsnbdClientProgram: Program<Mode, typeof options> = {
  name: 'tsnbd-client',
  summary: 'attach exports of a remote server as network block devices',
  synopsis: [
    'HOST [PORT] DEV [-N NAME] [-b BYTES] [-t SECONDS] [-n]',
    '-u PATH DEV [-N NAME] [-b BYTES] [-t SECONDS] [-n]',
    'URI DEV [-b BYTES] [-t SECONDS] [-n]',
    'DEV [-n]',
    '-d DEV [--release | --force]',
    '-c DEV',
    '-l HOST [PORT]',
    '-l -u PATH',
    '-l URI',
  ],
  description: [
    `An export of the network block device (NBD) server at HOST becomes the block device DEV of this machine, "/dev/nbd0" or "nbd0". PORT is a number, ${DEFAULT_PORT} unless given. The command returns when the device and its partitions can be used; a process in the background holds the device until it is detached.`,
    'A URI stands for host, port and name: "nbd://HOST:PORT/NAME" or "nbd+unix:///NAME?socket=PATH", in which a percent sign and two hexadecimal digits stand for a character that a URI cannot hold, and an IPv6 address is in brackets. The forms that QEMU had before, such as "nbd:HOST:PORT:exportname=NAME", are taken too.',
    'A DEV alone is looked up in /etc/nbdtab, a line of which is DEVICE HOST EXPORT [OPTIONS], as for nbd-client. Of its options there are port, bs, timeout, dead-timeout, persist, swap, unix and no_optgo; they stand in the place of those of the command line.',
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
    return { kind: 'list', address };
  }
  // As in nbd-client; but a host may be called so, too.
  const isNbdDevice = /^(\/dev\/)?nbd[0-9]+$/.test(operands.at(0) ?? '');
  if (isNbdDevice && operands.at(1) === undefined) {
    return fromNbdtab(values, operands.read('DEV', device), calledAs, nbdtab());
  }
  // As in nbd-client: the second operand is a port only if it is a number, else it is the device.
  const hasPort = /^[0-9]+$/.test(operands.at(1) ?? '');
  const server = uriOperand(operands, overUnix);
  if (server !== undefined && values.name !== undefined) {
    throw new UsageError('option --name: the URI says which export it is');
  }
  const request = {
    kind: 'remote',
    address: server?.address ?? serverAddress(operands, overUnix, hasPort),
    exportName: server?.exportName ?? values.name ?? '',
    ...operands.read('DEV', deviceOrAuto),
    kernelApi: kernelApiOf(values),
    blockSizeBytes: values['block-size'],
    requestTimeoutSeconds: values.timeout ?? 0,
    locksMemory: values.swap ?? false,
    ...persistenceOf(values, calledAs),
    ...netlinkChoice(values, kernelApiOf(values)),
    ...nodeChoice(values),
  } as const;
  operands.end();
  if (request.unattended && request.disconnectOnClose) {
    throw new UsageError('option --disconnect-on-close: with --no-persist nobody is there who does it');
  }
  checkChoice(request);
  return { kind: 'attach', request, foreground: values.nofork ?? false, verbosity: verbosityOf(values) };
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
  const { persist, 'no-persist': noPersist, 'dead-timeout': deadTimeout, 'retry-limit': retryLimit } = values;
  if (persist && noPersist) throw new UsageError('options --persist and --no-persist: only one of them at a time');
  const byIoctl = kernelApiOf(values) === 'ioctl';
  if (persist && byIoctl) {
    throw new UsageError('option --persist: it needs netlink; by ioctl a device that is in use cannot come back');
  }
  const without = noPersist || (calledAs === 'nbd-client' && !persist) || byIoctl;
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
