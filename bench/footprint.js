// Memory of the servers, idle and under load, and what an idle connection costs.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fio } from './cases.js';
import { idleConnections } from './idle-connections.js';
import { makeImage } from './image.js';
import { rampSeconds, runFio } from './load.js';
import { cpuSeconds, pssBytes } from './processes.js';
import { startServer } from './server.js';
import { spread } from './statistics.js';

/**
 * @typedef {import('./owned.js').Owned} Owned
 * @typedef {import('./peers.js').Peer} Peer
 * @typedef {import('./limits.js').Measured} Measured
 */

const MIB = 2 ** 20;
const IMAGE_BYTES = 64 * MIB;
const CONNECTIONS = 100;
const CONNECTION_LIMIT_MIB = 9;
/** A server may tidy up after a load, and does not so at once: V8 collects garbage until about 25 s after. */
const SETTLE_SECONDS_MAX = 60;
const QUIET_SECONDS = 8;
const IDLE_SECONDS = 2;
const LOAD = fio('unix randread 256k d16 c4');
const LOAD_SECONDS = 2;

/**
 * @param {Owned} owned
 * @param {readonly Peer[]} peers ours first
 * @returns {Promise<Measured[]>}
 */
export async function footprints(owned, peers) {
  const image = join(owned.folder, 'footprint.raw');
  makeImage(image, IMAGE_BYTES);
  const measured = [];
  for (const peer of peers) measured.push(...(await footprint(owned, peer, image, peer === peers[0])));
  return measured;
}

/**
 * @param {Owned} owned
 * @param {Peer} peer
 * @param {string} image
 * @param {boolean} limited
 * @returns {Promise<Measured[]>}
 */
async function footprint(owned, peer, image, limited) {
  const { idle, connected, spentMs } = await unused(owned, peer, image);
  const mib = (/** @type {number} */ bytes) => spread([bytes / MIB]);
  return [
    { what: `${peer.name}: PSS without a connection`, unit: 'MiB', value: mib(idle) },
    {
      what: `${peer.name}: PSS of each of ${CONNECTIONS} idle connections`,
      unit: 'MiB',
      value: mib((connected - idle) / CONNECTIONS),
      ...(limited ? { limit: CONNECTION_LIMIT_MIB } : {}),
    },
    {
      what: `${peer.name}: processor time of ${CONNECTIONS} idle connections`,
      unit: 'ms/s',
      value: spread([spentMs / IDLE_SECONDS]),
      ...(limited ? { limit: 0 } : {}),
    },
    {
      what: `${peer.name}: PSS under load, ${LOAD.name}`,
      unit: 'MiB',
      value: mib(await loadedBytes(owned, peer, image)),
    },
  ];
}

/**
 * Before the first connection, and with many that say nothing more.
 * @param {Owned} owned
 * @param {Peer} peer
 * @param {string} image
 */
async function unused(owned, peer, image) {
  const server = await startServer(owned, peer, 'unix', image);
  try {
    const idle = pssBytes(server.pid);
    const clients = await idleConnections(server, CONNECTIONS);
    await settled(server.pid);
    const before = cpuSeconds(server.pid);
    await sleep(IDLE_SECONDS * 1000);
    const spentMs = (cpuSeconds(server.pid) - before) * 1000;
    const connected = pssBytes(server.pid);
    clients.close();
    return { idle, connected, spentMs };
  } finally {
    await server.stop();
  }
}

/**
 * Waits until a server has used no processor time for some seconds.
 * @param {number} pid
 */
async function settled(pid) {
  for (let second = 0, quiet = 0; second < SETTLE_SECONDS_MAX && quiet < QUIET_SECONDS; second++) {
    const before = cpuSeconds(pid);
    await sleep(1000);
    quiet = cpuSeconds(pid) === before ? quiet + 1 : 0;
  }
}

/**
 * Near the end of a load.
 * @param {Owned} owned
 * @param {Peer} peer
 * @param {string} image
 */
async function loadedBytes(owned, peer, image) {
  const server = await startServer(owned, peer, 'unix', image);
  try {
    const load = runFio(owned, LOAD, server.uri, { seconds: LOAD_SECONDS, sizeBytes: IMAGE_BYTES });
    await sleep((rampSeconds(LOAD, LOAD_SECONDS) + LOAD_SECONDS * 0.8) * 1000);
    const loaded = pssBytes(server.pid);
    await load;
    return loaded;
  } finally {
    await server.stop();
  }
}
