import { lstatSync, unlinkSync } from 'node:fs';
import { createServer, type ListenOptions, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { addressInWords, checkUnixPath, type ListenAddress, type UnixAddress } from './address.js';
import { connect, KEEPALIVE_IDLE_MS } from './connect.js';
import { reasonInWords, TransportError } from './errors.js';

/**
 * Connections that the kernel keeps for us while we are busy: as many as may be served at a time. One too many may be
 * forgotten without a word, and its client waits in vain (seen, of 1,000 that came at once).
 */
const BACKLOG_MAX = 1_024;
/** Accepted sockets that are open in this process at once; one that is given up (detach-fd) no longer counts. */
export const OPEN_SOCKETS_MAX = 128;
const STALE_PROBE_LIMIT_MS = 1_000;

export interface Listener {
  /** With the port that was really taken where 0 was asked for. */
  readonly address: ListenAddress;
  /** Takes no more connections, removes the file of a unix socket of ours; sockets that were accepted stay. */
  close(): void;
}

export interface ListenCallbacks {
  /** Nothing has been read from the socket. */
  readonly onConnection: (socket: Socket) => void;
  /** A connection was closed at once because OPEN_SOCKETS_MAX are there. */
  readonly onDropped: () => void;
}

/**
 * Listens on a TCP address, on a unix socket, or on the socket that was inherited. The file of a unix socket that nobody
 * listens on any more is replaced.
 *
 * @throws TransportError 'address'
 */
export async function listen(address: ListenAddress, callbacks: ListenCallbacks): Promise<Listener> {
  if (address.kind === 'unix') checkUnixPath(address.path);
  const server = createServer({
    pauseOnConnect: true,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: KEEPALIVE_IDLE_MS,
  });
  server.maxConnections = OPEN_SOCKETS_MAX;
  try {
    await bind(server, address);
  } catch (error) {
    if (address.kind !== 'unix' || !(await removeStaleSocket(address, error))) throw listenError(address, error);
    await bind(server, address).catch((again: unknown) => {
      throw listenError(address, again);
    });
  }
  server.on('connection', (socket) => {
    socket.on('error', () => {}); // the owner sees 'close'; an 'error' without a listener would end the process
    callbacks.onConnection(socket);
  });
  server.on('drop', () => callbacks.onDropped());
  // accept(2) out of file descriptors: libuv has closed that connection and goes on.
  server.on('error', () => callbacks.onDropped());
  return { address: boundAddress(server, address), close: () => server.close() };
}

function bind(server: Server, address: ListenAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ ...whereToListen(address), backlog: BACKLOG_MAX }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function whereToListen(address: ListenAddress): ListenOptions | { readonly fd: number } {
  if (address.kind === 'unix') return { path: address.path };
  if (address.kind === 'tcp') return { host: address.host, port: address.port };
  return { fd: address.fd };
}

/** Whether `error` was a socket file that a dead server left, which is removed now. */
async function removeStaleSocket(address: UnixAddress, error: unknown): Promise<boolean> {
  if (!hasCode(error, 'EADDRINUSE')) return false;
  if (!lstatSync(address.path, { throwIfNoEntry: false })?.isSocket()) return false;
  try {
    const socket = await connect(address, AbortSignal.timeout(STALE_PROBE_LIMIT_MS));
    socket.destroy();
    return false;
  } catch (probe) {
    if (!(probe instanceof TransportError) || probe.code !== 'refused') return false;
  }
  unlinkSync(address.path);
  return true;
}

function boundAddress(server: Server, address: ListenAddress): ListenAddress {
  const bound = server.address();
  if (address.kind !== 'tcp' || bound === null || typeof bound === 'string') return address;
  return { ...address, port: bound.port };
}

function listenError(address: ListenAddress, cause: unknown): TransportError {
  return new TransportError('address', `cannot listen on ${addressInWords(address)}: ${why(address, cause)}`, {
    cause,
  });
}

function why(address: ListenAddress, cause: unknown): string {
  if (address.kind === 'unix') {
    // libuv says EACCES for ENOENT here.
    const folder = dirname(address.path);
    if (!lstatSync(folder, { throwIfNoEntry: false })) return `there is no folder ${folder}`;
    if (hasCode(cause, 'EADDRINUSE')) {
      const isSocket = lstatSync(address.path, { throwIfNoEntry: false })?.isSocket() ?? false;
      return isSocket ? 'another server listens there' : 'there is a file that is no socket';
    }
  }
  if (address.kind === 'inherited' && hasCode(cause, 'EINVAL')) return 'it is no socket that can listen';
  if (hasCode(cause, 'ENOTFOUND')) return 'no such host is known';
  return reasonInWords(cause);
}

function hasCode(error: unknown, code: string): boolean {
  return (error as NodeJS.ErrnoException).code === code;
}
