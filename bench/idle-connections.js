// Clients that connect, read something, and then say nothing more: what a server keeps for them is its own.
import { once } from 'node:events';
import { createConnection } from 'node:net';

/**
 * @typedef {import('./server.js').Server} Server
 * @typedef {import('node:net').Socket} Socket
 */

const LIMIT_MS = 30_000;
const GREETING_BYTES = 18;
const CLIENT_FLAGS = 3; // FIXED_NEWSTYLE, NO_ZEROES
const OPT_GO = 7;
const REP_ACK = 1;
const REQUEST_MAGIC = 0x25609513;
const REPLY_BYTES = 16;
const READ_BYTES = 262_144;
/** Requests at once: enough that buffers for a load are made. */
const READS = 8;

/**
 * @param {Server} server
 * @param {number} count
 * @returns {Promise<{ close: () => void }>} once all have read
 */
export async function idleConnections(server, count) {
  /** @type {Socket[]} */
  const sockets = [];
  for (let index = 0; index < count; index++) sockets.push(await connectAndRead(server));
  return { close: () => sockets.map((socket) => socket.destroy()) };
}

/** @param {Server} server */
async function connectAndRead({ address, exportName }) {
  const socket = address.kind === 'unix' ? createConnection(address.path) : createConnection(address.port, '127.0.0.1');
  const timer = setTimeout(() => socket.destroy(new Error('a server does not answer')), LIMIT_MS);
  try {
    await once(socket, 'connect');
    await take(socket, GREETING_BYTES);
    const go = Buffer.alloc(4 + 16 + 4 + exportName.length + 2);
    go.writeUInt32BE(CLIENT_FLAGS);
    go.write('IHAVEOPT', 4, 'latin1');
    go.writeUInt32BE(OPT_GO, 12);
    go.writeUInt32BE(go.length - 20, 16);
    go.writeUInt32BE(exportName.length, 20);
    go.write(exportName, 24, 'latin1');
    socket.write(go);
    await untilAcknowledged(socket);
    for (let index = 0; index < READS; index++) socket.write(readRequest(index));
    await take(socket, READS * (REPLY_BYTES + READ_BYTES));
    return socket;
  } finally {
    clearTimeout(timer);
  }
}

/** @param {Socket} socket */
async function untilAcknowledged(socket) {
  for (;;) {
    const header = await take(socket, 20);
    const [type, length] = [header.readUInt32BE(12), header.readUInt32BE(16)];
    await take(socket, length);
    if (type === REP_ACK) return;
    if (type >= 2 ** 31) throw new Error(`a server refuses its export: ${type}`);
  }
}

/** @param {number} index */
function readRequest(index) {
  const request = Buffer.alloc(28);
  request.writeUInt32BE(REQUEST_MAGIC);
  request.writeUInt32BE(index, 12);
  request.writeUInt32BE(index * READ_BYTES, 20);
  request.writeUInt32BE(READ_BYTES, 24);
  return request;
}

/**
 * @param {Socket} socket
 * @param {number} length
 * @returns {Promise<Buffer>}
 */
async function take(socket, length) {
  if (length === 0) return Buffer.alloc(0);
  const pieces = [];
  for (let left = length; left > 0; ) {
    const piece = /** @type {Buffer | null} */ (socket.read(Math.min(left, Math.max(1, socket.readableLength))));
    if (piece !== null) {
      pieces.push(piece);
      left -= piece.length;
    } else if (socket.readableEnded || socket.destroyed) throw new Error('a server closed an idle connection');
    else await once(socket, 'readable');
  }
  return Buffer.concat(pieces);
}
