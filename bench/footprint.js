// Memory of the servers, idle and under load, and what an idle connection costs.
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { fio } from './cases.js';
import { idleConnections } from './idle-connections.js';
import { makeImage } from './image.js';
import { rampSeconds, runFio } from './load.js';
import { cpuSeconds, pssBytes } from './processes.js';
import { tellLate } from './rounds.js';
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
 * @param {number} lateAt (of performance.now()): what idle connections cost a server that is not quiet by then is left out
 * @returns {Promise<Measured[]>}
 */
export async function footprints(owned, peers, lateAt) {
  const image = join(owned.folder, 'footprint.raw');
  makeImage(image, IMAGE_BYTES);
  const measured = [];
  for (const peer of peers)
    measured.push(...(await footprint(owned, peer, image, { limited: peer === peers[0], lateAt })));
  return measured;
}

/**
 * @param {Owned} owned
 * @param {Peer} peer
 * @param {string} image
 * @param {{ limited: boolean, lateAt: number }} how
 * @returns {Promise<Measured[]>}
 */
async function footprint(owned, peer, image, { limited, lateAt }) {
  const { idle, connections } = await unused(owned, peer, image, lateAt);
  const mib = (/** @type {number} */ bytes) => spread([bytes / MIB]);
  if (connections === undefined) tellLate([`${peer.name}: ${CONNECTIONS} idle connections`]);
  return [
    { what: `${peer.name}: PSS without a connection`, unit: 'MiB', value: mib(idle) },
    ...(connections === undefined
      ? []
      : [
          {
            what: `${peer.name}: PSS of each of ${CONNECTIONS} idle connections`,
            unit: 'MiB',
            value: mib((connections.pssBytes - idle) / CONNECTIONS),
            ...(limited ? { limit: CONNECTION_LIMIT_MIB } : {}),
          },
          {
            what: `${peer.name}: processor time of ${CONNECTIONS} idle connections`,
            unit: 'ms/s',
            value: spread([connections.spentMs / IDLE_SECONDS]),
            ...(limited ? { limit: 0 } : {}),
          },
        ]),
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
 * @param {number} lateAt
 */
async function unused(owned, peer, image, lateAt) {
  const server = await startServer(owned, peer, 'unix', image);
  try {
    const idle = pssBytes(server.pid);
    const clients = await idleConnections(server, CONNECTIONS);
    if (!(await settled(server.pid, lateAt))) return { idle, connections: undefined };
    const before = cpuSeconds(server.pid);
    await sleep(IDLE_SECONDS * 1000);
    const spentMs = (cpuSeconds(server.pid) - before) * 1000;
    const connections = { spentMs, pssBytes: pssBytes(server.pid) };
    clients.close();
    return { idle, connections };
  } finally {
    await server.stop();
  }
}

/**
 * Waits until a server has used no processor time for some seconds, or has had the time for that; false: it is too late to wait.
 * @param {number} pid
 * @param {number} lateAt
 */
async function settled(pid, lateAt) {
  for (let second = 0, quiet = 0; second < SETTLE_SECONDS_MAX && quiet < QUIET_SECONDS; second++) {
    if (performance.now() > lateAt) return false;
    const before = cpuSeconds(pid);
    await sleep(1000);
    quiet = cpuSeconds(pid) === before ? quiet + 1 : 0;
  }
  return true;
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
