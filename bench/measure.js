// One sample: one case on one server, once.

import { statSync } from 'node:fs';
import { drop, fullOf, qcow2Image, settle, warm } from './image.js';
import { runCopy, runFio } from './load.js';
import { cpuSeconds } from './processes.js';
import { startServer } from './server.js';

/**
 * @typedef {import('./owned.js').Owned} Owned
 * @typedef {import('./peers.js').Peer} Peer
 * @typedef {import('./cases.js').Case} Case
 */

/**
 * @typedef {object} Sample
 * @property {number} rate requests a second
 * @property {number} requests
 * @property {number} [cpuSeconds] of all the server's processes, from its first connection to its last
 * @property {number} [p99Micros]
 * @property {number} [clientCores]
 */

/**
 * @typedef {object} Setting
 * @property {string} image
 * @property {string} source a file of the image's size, for nbdcopy to the server
 * @property {number} sizeBytes
 * @property {number} seconds
 */

/**
 * @param {Owned} owned
 * @param {Peer} peer
 * @param {Case} one
 * @param {Setting} setting
 * @returns {Promise<Sample>}
 */
export async function measure(owned, peer, one, { image: raw, source, sizeBytes, seconds }) {
  const qcow2 = one.kind === 'fio' ? one.qcow2 : undefined;
  const image = qcow2 === undefined ? raw : qcow2Image(raw, qcow2);
  if (one.transport === 'kernel') throw new Error(`${one.name} is measured in the guest`);
  const server = await startServer(owned, peer, one.transport, image, {
    format: qcow2 === undefined ? 'raw' : 'qcow2',
    direct: one.kind === 'fio' && one.cache === 'direct',
  });
  try {
    if (one.kind === 'fio' && one.cache !== 'warm') drop(image, sizeBytes);
    else warm(image, statSync(image).size);
    if (qcow2 === 'backed') warm(fullOf(raw), statSync(fullOf(raw)).size);
    const before = cpuSeconds(server.pid);
    const load =
      one.kind === 'fio'
        ? await runFio(owned, one, server.uri, { seconds, sizeBytes })
        : await runCopy(owned, one, server.uri, { seconds, sizeBytes, source });
    return { ...load, cpuSeconds: cpuSeconds(server.pid) - before };
  } finally {
    await server.stop();
    if (one.access.endsWith('write')) settle(image);
  }
}
