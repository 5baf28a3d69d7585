import type { ImageSettings } from '../attach/attach-request.js';
import { FIRST_PASSED_FD } from '../daemon/listen-fds.js';
import { CLIENTS_MAX } from '../server/places.js';
import { type Address, DEFAULT_PORT, type ListenAddress } from '../transport/address.js';
import { UsageError } from './errors.js';
import type { OptionTable, OptionValues } from './option-table.js';
import { clientCount, handshakeLimitSeconds, host, path, portNumber } from './option-values.js';
import type { Verbosity } from './parse.js';

/** One image that is to be served. */
export interface ExportRequest {
  /** '' is the default export. */
  readonly name: string;
  readonly description: string | undefined;
  /** Absolute. */
  readonly imagePath: string;
}

/** A server as a command line asks for it. */
export interface ServeAction {
  readonly kind: 'serve';
  readonly address: ListenAddress;
  readonly exports: readonly ExportRequest[];
  readonly settings: ImageSettings;
  /** Clients at a time; absent: as many as there can be. */
  readonly clientsMax: number | undefined;
  /** Goes on when the last client has left. */
  readonly persistent: boolean;
  /** 0 is no limit. */
  readonly handshakeLimitMs: number;
  /** In a process in the background, once it listens. */
  readonly fork?: true | undefined;
  /** Absolute; holds the server's process id while it serves. */
  readonly pidFile?: string | undefined;
  readonly verbosity: Verbosity;
}

const DEFAULT_HOST = '127.0.0.1';
const DEFAULT_CLIENTS = 1;
const DEFAULT_HANDSHAKE_LIMIT_SECONDS = 10;
const MS_PER_SECOND = 1000;

/** Where a server is. */
export function whereOptions<Mode extends string>(modes: readonly Mode[]) {
  return {
    bind: {
      short: 'b',
      value: '<ADDR>',
      read: host,
      modes,
      help: `The address, or the name of it, to listen on; ${DEFAULT_HOST} unless given.`,
    },
    port: {
      short: 'p',
      value: '<PORT>',
      read: portNumber,
      modes,
      help: `The TCP port to listen on; ${DEFAULT_PORT} unless given.`,
    },
    socket: {
      short: 'k',
      value: '<PATH>',
      read: path,
      modes,
      help: 'Listen on a unix socket instead of TCP.',
    },
  } satisfies OptionTable<Mode>;
}

/** Where a server listens, and whom it serves. */
export function servingOptions<Mode extends string>(modes: readonly Mode[]) {
  return {
    ...whereOptions(modes),
    shared: {
      short: 'e',
      value: '<NUM>',
      read: clientCount,
      modes,
      help: `How many clients are served at a time; ${DEFAULT_CLIENTS} unless given, 0 for any number up to ${CLIENTS_MAX}. One too many is told so.`,
    },
    persistent: {
      short: 't',
      modes,
      help: 'Go on when the last client has left.',
    },
    'handshake-limit': {
      value: '<SECONDS>',
      read: handshakeLimitSeconds,
      modes,
      help: `How long a client may take to choose its export; ${DEFAULT_HANDSHAKE_LIMIT_SECONDS} unless given, 0 for any time.`,
    },
    fork: {
      modes,
      help: 'Serve in the background, and return when clients can connect: the exit status says whether they can. What comes later is reported to syslog.',
    },
    'pid-file': {
      value: '<PATH>',
      read: path,
      modes,
      help: "Write the server's process id to PATH when clients can connect. It is removed when the server ends.",
    },
  } satisfies OptionTable<Mode>;
}

type ServingValues = OptionValues<ReturnType<typeof servingOptions>>;

/** What every form of serving has in common; `passedSockets` is how many listening sockets the process was given. */
export function servingOf(values: ServingValues, passedSockets: number) {
  const clients = values.shared ?? DEFAULT_CLIENTS;
  return {
    address: addressOf(values, passedSockets),
    clientsMax: clients === 0 ? undefined : clients,
    persistent: values.persistent ?? false,
    handshakeLimitMs: (values['handshake-limit'] ?? DEFAULT_HANDSHAKE_LIMIT_SECONDS) * MS_PER_SECOND,
    ...(values.fork && { fork: values.fork }),
    ...(values['pid-file'] !== undefined && { pidFile: values['pid-file'] }),
  } satisfies Partial<ServeAction>;
}

function addressOf(values: ServingValues, passedSockets: number): ListenAddress {
  return passedSockets > 0 ? inheritedSocket(values, passedSockets) : whereOf(values);
}

/** What was typed of `whereOptions`, and else the defaults. */
export function whereOf(values: OptionValues<ReturnType<typeof whereOptions>>): Address {
  if (values.socket === undefined) {
    return { kind: 'tcp', host: values.bind ?? DEFAULT_HOST, port: values.port ?? DEFAULT_PORT };
  }
  refuse(values, ['bind', 'port'], 'with --socket');
  return { kind: 'unix', path: values.socket };
}

function inheritedSocket(values: ServingValues, passedSockets: number): ListenAddress {
  if (passedSockets > 1)
    throw new UsageError(`LISTEN_FDS: ${passedSockets} sockets were passed, and only 1 can be used`);
  refuse(values, ['bind', 'port', 'socket', 'fork'], 'with a socket that was passed (LISTEN_FDS)');
  return { kind: 'inherited', fd: FIRST_PASSED_FD };
}

function refuse(values: ServingValues, longs: readonly (keyof ServingValues)[], where: string): void {
  for (const long of longs) {
    if (long in values) throw new UsageError(`option --${long}: it has no effect ${where}`);
  }
}
