import type { ImageAttachRequest } from '../attach/attach-request.js';
import type { Address } from '../transport/address.js';
import { UsageError } from './errors.js';
import type { OptionTable, OptionValues, Program } from './option-table.js';
import { clientCount, DEFAULT_PORT, device, host, imageFormat, path, portNumber } from './option-values.js';
import { type Answer, type Given, parse, type Verbosity, verbosityOf } from './parse.js';

/** What a tsnbd command line asks for; nothing has happened yet. */
export type TsnbdAction =
  | {
      readonly kind: 'attach';
      readonly request: ImageAttachRequest;
      readonly foreground: boolean;
      readonly verbosity: Verbosity;
    }
  | { readonly kind: 'detach'; readonly device: string; readonly force: boolean }
  | {
      readonly kind: 'serve';
      readonly address: Address;
      /** Absolute. */
      readonly imagePath: string;
      readonly format: 'raw' | undefined;
      readonly readOnly: boolean;
      /** Clients at a time; absent: no limit. */
      readonly clientsMax: number | undefined;
      /** Goes on when the last client has left. */
      readonly persistent: boolean;
      readonly verbosity: Verbosity;
    }
  | Answer;

type Mode = 'serve' | 'attach' | 'detach';
const EVERY_MODE: readonly Mode[] = ['serve', 'attach', 'detach'];
const WITH_IMAGE: readonly Mode[] = ['serve', 'attach'];

const DEFAULT_HOST = '127.0.0.1';
const DEFAULT_CLIENTS = 1;

const options = {
  connect: {
    short: 'c',
    value: '<DEV>',
    read: device,
    modes: ['attach'],
    help: 'Attach IMAGE as the block device DEV, "/dev/nbd0" or "nbd0", and return when it and its partitions can be used.',
  },
  disconnect: {
    short: 'd',
    value: '[DEV]',
    read: device,
    modes: ['detach'],
    help: 'Detach DEV: refused while a file system, swap or another device uses it, done when the kernel says that it is free.',
  },
  force: {
    modes: ['detach'],
    help: 'Detach even a device that is in use; what was not written yet is lost.',
  },
  nofork: {
    modes: ['attach'],
    help: 'Stay in the foreground until the device is detached.',
  },
  format: {
    short: 'f',
    value: '<FORMAT>',
    read: imageFormat,
    modes: WITH_IMAGE,
    help: 'The format of IMAGE: raw. Without it, an image that begins like another format is refused.',
  },
  'read-only': {
    short: 'r',
    modes: WITH_IMAGE,
    help: 'Refuse every write; IMAGE is opened for reading only.',
  },
  bind: {
    short: 'b',
    value: '<ADDR>',
    read: host,
    modes: ['serve'],
    help: `The address, or the name of it, to listen on; ${DEFAULT_HOST} unless given.`,
  },
  port: {
    short: 'p',
    value: '<PORT>',
    read: portNumber,
    modes: ['serve'],
    help: `The TCP port to listen on; ${DEFAULT_PORT} unless given.`,
  },
  socket: {
    short: 'k',
    value: '<PATH>',
    read: path,
    modes: ['serve'],
    help: 'Listen on a unix socket instead of TCP.',
  },
  shared: {
    short: 'e',
    value: '<NUM>',
    read: clientCount,
    modes: ['serve'],
    help: `How many clients are served at a time; ${DEFAULT_CLIENTS} unless given, 0 for any number.`,
  },
  persistent: {
    short: 't',
    modes: ['serve'],
    help: 'Go on when the last client has left.',
  },
  verbose: { short: 'v', modes: WITH_IMAGE, help: 'Tell the steps.' },
  debug: { modes: WITH_IMAGE, help: 'Tell the steps, and of a failure where in the program it arose.' },
  help: { short: 'h', modes: EVERY_MODE, help: 'Print a summary and exit.' },
  version: { short: 'V', modes: EVERY_MODE, help: 'Print the version and exit.' },
} satisfies OptionTable<Mode>;

export const tsnbdProgram: Program<Mode, typeof options> = {
  name: 'tsnbd',
  summary: 'attach disk images as network block devices, and serve them',
  synopsis: [
    '-c DEV [-f FORMAT] [-r] [--nofork] IMAGE',
    '-d DEV [--force]',
    '[-b ADDR] [-p PORT] [-f FORMAT] [-r] [-e NUM] [-t] IMAGE',
    '-k PATH [-f FORMAT] [-r] [-e NUM] [-t] IMAGE',
  ],
  description: [
    'With --connect, IMAGE becomes the block device DEV of this machine, served by a process in the background until it is detached with --disconnect.',
    'With neither, IMAGE is served to clients over the network block device (NBD) protocol, in the foreground. Without --persistent the server ends when its last client leaves. Nothing protects the connection: listen on another address than 127.0.0.1 only in a network that you trust.',
    'IMAGE is a regular file or a block device. It is locked like QEMU locks its images, so that no second program writes to it.',
    'What a client trims is given back to the file system that IMAGE lies on.',
    'The background process of an attached device detaches it on SIGTERM, once no file system, swap or other device uses it, and reports to syslog. The device goes down if that process is stopped, frozen or suspended.',
  ],
  modes: {
    attach: { chosenBy: 'connect', title: 'attaching an image' },
    detach: { chosenBy: 'disconnect', title: 'detaching a device' },
    serve: { title: 'serving an image' },
  },
  defaultMode: 'serve',
  options,
  longWithOneDash: false,
  exitStatusNotes: [],
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
  seeAlso: ['tsnbd-client(8)', 'qemu-nbd(8)', 'mount(8)'],
};

/** Reads the arguments of tsnbd (without node and script). */
export function parseTsnbd(argv: readonly string[]): TsnbdAction {
  return parse(tsnbdProgram, argv, actionOf);
}

function actionOf({ mode, values, operands }: Given<Mode, typeof options>): TsnbdAction {
  if (mode === 'detach') {
    const given = values.disconnect === true ? undefined : values.disconnect;
    const dev = given ?? operands.read('DEV', device);
    operands.end();
    return { kind: 'detach', device: dev, force: values.force ?? false };
  }
  const verbosity = verbosityOf(values);
  const imagePath = operands.read('IMAGE', path);
  operands.end();
  const { format } = values;
  const readOnly = values['read-only'] ?? false;
  if (values.connect !== undefined) {
    const request = { kind: 'image', imagePath, format, readOnly, device: values.connect } as const;
    return { kind: 'attach', request, foreground: values.nofork ?? false, verbosity };
  }
  const clients = values.shared ?? DEFAULT_CLIENTS;
  const clientsMax = clients === 0 ? undefined : clients;
  const persistent = values.persistent ?? false;
  return { kind: 'serve', address: addressOf(values), imagePath, format, readOnly, clientsMax, persistent, verbosity };
}

function addressOf(values: OptionValues<typeof options>): Address {
  if (values.socket === undefined) {
    return { kind: 'tcp', host: values.bind ?? DEFAULT_HOST, port: values.port ?? DEFAULT_PORT };
  }
  for (const long of ['bind', 'port'] as const) {
    if (long in values) throw new UsageError(`option --${long}: it has no effect with --socket`);
  }
  return { kind: 'unix', path: values.socket };
}
