// One sample: one case on one server, once.

import { statSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { drop, fullOf, qcow2Image, settle, touchMemory, warm } from './image.js';
import { fioOn, rampSeconds, runCopy, runFio } from './load.js';
import { cpuSeconds } from './processes.js';
import { atDefaultLimit } from './send-limit.js';
import { startServer } from './server.js';

/**
 * @typedef {import('./owned.js').Owned} Owned
 * @typedef {import('./peers.js').Peer} Peer
 * @typedef {import('./peers.js').Disk} Disk
 * @typedef {import('./cases.js').Case} Case
 */

/**
 * @typedef {object} Sample
 * @property {number} rate requests a second
 * @property {number} requests
 * @property {number} [cpuSeconds] of all the server's processes, for these requests
 * @property {number} [p99Micros]
 * @property {number} [clientCores]
 */

/**
 * @typedef {object} Setting
 * @property {Raw} small
 * @property {Raw} [large] for what is through with the other in no time
 * @property {string} source a file of the small image's size, for nbdcopy to the server
 * @property {number} seconds
 */

/**
 * A raw image.
 * @typedef {object} Raw
 * @property {string} path
 * @property {number} sizeBytes
 */

/** fio takes so long to start, at most. */
const START_MS = 200;

/** Whether a case is for the large image. @param {Case} one */
export function needsLarge(one) {
  return one.kind === 'fio' && one.cache === 'cold' && one.qcow2 === undefined && one.transport !== 'kernel';
}

/**
 * The raw image that a case is for.
 * @param {Case} one
 * @param {Setting} setting
 */
function rawFor(one, { small, large = small }) {
  return needsLarge(one) ? large : small;
}

/**
 * @param {Owned} owned
 * @param {Peer | Disk} peer
 * @param {Case} one
 * @param {Setting} setting
 * @returns {Promise<Sample>}
 */
export async function measure(owned, peer, one, setting) {
  if ('engine' in peer) return measureDisk(owned, peer, one, setting);
  const act = () => measureNow(owned, peer, one, setting);
  return one.kind === 'fio' && one.underLimit === true ? atDefaultLimit(owned.folder, act) : act();
}

/**
 * @param {Owned} owned
 * @param {Peer} peer
 * @param {Case} one
 * @param {Setting} setting
 * @returns {Promise<Sample>}
 */
async function measureNow(owned, peer, one, setting) {
  const { source, seconds } = setting;
  const { path: raw, sizeBytes } = rawFor(one, setting);
  const qcow2 = one.kind === 'fio' ? one.qcow2 : undefined;
  const image = qcow2 === undefined ? raw : await qcow2Image(raw, qcow2);
  if (one.transport === 'kernel') throw new Error(`${one.name} is measured in the guest`);
  const server = await startServer(owned, peer, one.transport, image, {
    format: qcow2 === undefined ? 'raw' : 'qcow2',
    direct: one.kind === 'fio' && one.cache === 'direct',
    underLimit: one.kind === 'fio' && one.underLimit === true,
  });
  try {
    const cache = one.kind === 'fio' ? one.cache : 'warm';
    if (cache !== 'warm') drop(image, sizeBytes);
    else warm(image, statSync(image).size);
    if (qcow2 === 'backed') warm(fullOf(raw), statSync(fullOf(raw)).size);
    if (qcow2 === 'new' || cache === 'cold' || cache === 'once') touchMemory(sizeBytes);
    if (one.kind === 'nbdcopy') {
      const copy = (/** @type {number} */ limit) =>
        runCopy(owned, one, server.uri, { seconds: limit, sizeBytes, source });
      await copy(seconds / 2);
      const before = cpuSeconds(server.pid);
      const load = await copy(seconds);
      return { ...load, cpuSeconds: cpuSeconds(server.pid) - before };
    }
    const ramp = rampSeconds(one, seconds);
    const before = cpuSeconds(server.pid);
    const [load, cores] = await Promise.all([
      runFio(owned, one, server.uri, { seconds, sizeBytes }),
      ramp > 0 ? coresTaken(server.pid, ramp * 1000 + START_MS, (ramp + seconds) * 1000) : undefined,
    ]);
    const spent = cores === undefined ? cpuSeconds(server.pid) - before : (cores * load.requests) / load.rate;
    return { ...load, cpuSeconds: spent };
  } finally {
    await server.stop();
    if (one.access.endsWith('write')) settle(image);
  }
}

/**
 * @param {Owned} owned
 * @param {Disk} disk
 * @param {Case} one
 * @param {Setting} setting
 * @returns {Promise<Sample>}
 */
async function measureDisk(owned, { engine }, one, setting) {
  if (one.kind !== 'fio') throw new Error(`${one.name} has no disk without a server`);
  const { path, sizeBytes } = rawFor(one, setting);
  drop(path, sizeBytes);
  touchMemory(sizeBytes);
  return fioOn(owned, one, [...engine, `--filename=${path}`], { seconds: setting.seconds, sizeBytes });
}

/**
 * Processor time of a server in a second, from one moment to another.
 * @param {number} pid
 * @param {number} fromMs
 * @param {number} toMs
 */
async function coresTaken(pid, fromMs, toMs) {
  await sleep(fromMs);
  const [begin, before] = [performance.now(), cpuSeconds(pid)];
  await sleep(toMs - fromMs);
  return (cpuSeconds(pid) - before) / ((performance.now() - begin) / 1000);
}
