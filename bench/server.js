// A running server: started on an image, waited for, ended.
import { once } from 'node:events';
import { readFileSync, rmSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isAlive } from './processes.js';
import { UNDER_LIMIT } from './send-limit.js';

/**
 * @typedef {import('./owned.js').Owned} Owned
 * @typedef {import('./peers.js').Peer} Peer
 * @typedef {import('./peers.js').Address} Address
 */

const READY_LIMIT_MS = 20_000;
const STOP_LIMIT_MS = 20_000;
const STOP_AGAIN_MS = 1_000;
const LOOK_MS = 5;

/** A server could not be started; the message has its own words. */
export class ServerError extends Error {
  /** @override */
  name = 'ServerError';
}

/**
 * @typedef {object} Server
 * @property {number} pid
 * @property {Address} address
 * @property {string} exportName
 * @property {string} uri
 * @property {() => Promise<void>} stop
 */

/**
 * Starts `peer` on `image` and waits until it takes connections.
 * @param {Owned} owned
 * @param {Peer} peer
 * @param {'unix' | 'tcp'} transport
 * @param {string} image
 * @param {import('./peers.js').Opening} [opening]
 * @returns {Promise<Server>}
 */
export async function startServer(owned, peer, transport, image, opening = { format: 'raw', direct: false }) {
  const address = await freeAddress(owned, transport);
  const command = peer.command(address, image, owned.folder, opening);
  const [program = '', ...args] = opening.underLimit === true ? [...UNDER_LIMIT, ...command] : command;
  const child = owned.start(program, args, ['ignore', 'ignore', 'pipe']);
  let said = '';
  child.stderr?.setEncoding('utf8').on('data', (text) => {
    said = (said + text).slice(-4096);
  });
  /** @type {Promise<string | undefined>} */
  const failure = new Promise((resolve) => child.once('error', (error) => resolve(error.message)));
  const exit = new Promise((resolve) => child.once('exit', resolve));
  const daemonFile = peer.daemonPidFile === undefined ? undefined : join(owned.folder, peer.daemonPidFile);
  try {
    await Promise.race([
      takesConnections(address, () => child.exitCode === null || (child.exitCode === 0 && daemonFile !== undefined)),
      failure.then((message) => Promise.reject(new Error(message))),
    ]);
  } catch (error) {
    owned.ended(child);
    throw new ServerError(
      `${peer.name} does not serve (status ${child.exitCode ?? child.signalCode ?? 'none yet'}): ${said}`,
      { cause: error },
    );
  }
  const pid = daemonFile === undefined ? child.pid : Number(readFileSync(daemonFile, 'utf8'));
  if (pid === undefined || !(pid > 0)) throw new ServerError(`${peer.name} has no process`);
  return {
    pid,
    address,
    exportName: peer.exportName ?? '',
    uri: uriOf(address, peer.exportName ?? ''),
    stop: async () => {
      await terminate(pid, daemonFile === undefined ? exit : undefined);
      owned.ended(child);
      if (daemonFile !== undefined) rmSync(daemonFile, { force: true });
      if (address.kind === 'unix') rmSync(address.path, { force: true });
    },
  };
}

/**
 * @param {Address} address
 * @param {string} exportName
 */
function uriOf(address, exportName) {
  if (address.kind === 'unix') return `nbd+unix:///${exportName}?socket=${address.path}`;
  return `nbd://127.0.0.1:${address.port}/${exportName}`;
}

/**
 * @param {Owned} owned
 * @param {'unix' | 'tcp'} transport
 * @returns {Promise<Address>}
 */
async function freeAddress(owned, transport) {
  if (transport === 'unix') return { kind: 'unix', path: join(owned.folder, 'socket') };
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return { kind: 'tcp', port: typeof address === 'object' && address !== null ? address.port : 0 };
}

/**
 * @param {Address} address
 * @param {() => boolean} mayStill
 */
async function takesConnections(address, mayStill) {
  const deadline = Date.now() + READY_LIMIT_MS;
  for (;;) {
    const socket =
      address.kind === 'unix' ? createConnection(address.path) : createConnection(address.port, '127.0.0.1');
    try {
      await once(socket, 'connect');
      return;
    } catch (error) {
      if (!mayStill() || Date.now() > deadline) throw error;
      await sleep(LOOK_MS);
    } finally {
      socket.destroy();
    }
  }
}

/**
 * SIGTERM, and SIGKILL if that is not enough. QEMU 7.2 may miss one that comes when it has only just begun to serve (seen on a busy
 * machine), so it is sent again.
 * @param {number} pid
 * @param {Promise<unknown> | undefined} exit of our own child
 */
async function terminate(pid, exit) {
  const timer = setTimeout(() => signal(pid, 'SIGKILL'), STOP_LIMIT_MS);
  const again = setInterval(() => signal(pid, 'SIGTERM'), STOP_AGAIN_MS);
  signal(pid, 'SIGTERM');
  if (exit === undefined) while (isAlive(pid)) await sleep(LOOK_MS);
  else await exit;
  clearTimeout(timer);
  clearInterval(again);
}

/**
 * @param {number} pid
 * @param {NodeJS.Signals} name
 */
function signal(pid, name) {
  try {
    process.kill(pid, name);
  } catch {
    // Gone already.
  }
}
