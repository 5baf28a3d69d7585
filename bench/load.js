// The load of one case on one server, and what it gave: fio's nbd engine, or nbdcopy of the whole image.
import { performance } from 'node:perf_hooks';
import { succeed } from './programs.js';

/**
 * @typedef {import('./owned.js').Owned} Owned
 * @typedef {import('./cases.js').FioCase} FioCase
 * @typedef {import('./cases.js').CopyCase} CopyCase
 */

/** What nbdcopy asks for in one request. */
const COPY_REQUEST_BYTES = 256 * 1024;
const SPARE_MS = 60_000;

/**
 * @typedef {object} Load
 * @property {number} rate requests a second
 * @property {number} requests that were answered
 * @property {number} [p99Micros] of a request's time, where the program tells it
 * @property {number} [clientCores] processor time of the client in a second, where it tells that
 */

/**
 * How long fio asks before it begins to measure: what servers do in their first second, one whose code is compiled as it runs above
 * all, is not what they do for hours. None where it matters that something is done for the first time.
 * @param {FioCase} one
 * @param {number} seconds
 */
export function rampSeconds(one, seconds) {
  return one.cache === 'once' || one.qcow2 === 'new' ? 0 : Math.min(1, seconds / 2);
}

/**
 * The arguments of fio for a case; the caller adds what the case runs on.
 * @param {FioCase} one
 * @param {number} seconds
 * @param {number} sizeBytes of the image
 */
export function fioArguments(one, seconds, sizeBytes) {
  const piece = Math.floor(sizeBytes / one.connections);
  return [
    '--name=bench',
    `--rw=${one.access}`,
    `--bs=${one.blockBytes}`,
    `--iodepth=${one.depth}`,
    `--numjobs=${one.connections}`,
    `--runtime=${Math.round(seconds * 1000)}ms`,
    ...(one.cache === 'once' ? [] : ['--time_based']),
    ...(rampSeconds(one, seconds) > 0 ? [`--ramp_time=${Math.round(rampSeconds(one, seconds) * 1000)}ms`] : []),
    // Sequential connections each take a part of the image, so that none reads what another has just brought in.
    ...(one.connections > 1 && !one.access.startsWith('rand')
      ? [`--size=${piece}`, `--offset_increment=${piece}`]
      : []),
    ...(one.writesASync === undefined ? [] : [`--fsync=${one.writesASync}`]),
    '--thread',
    '--group_reporting',
    '--output-format=json',
  ];
}

/**
 * @param {string} output of fio, in JSON
 * @param {number} [threads] of it
 * @returns {Load}
 */
export function fioLoad(output, threads = 1) {
  const { jobs } = JSON.parse(output.slice(output.indexOf('{')));
  const [job] = jobs;
  if (jobs.length !== 1 || job.error !== 0) throw new Error(`fio failed: ${output}`);
  const side = job.read.total_ios > 0 ? job.read : job.write;
  if (!(side.total_ios > 0)) throw new Error('fio got no answer');
  return {
    rate: side.iops,
    requests: side.total_ios,
    p99Micros: side.clat_ns.percentile['99.000000'] / 1000,
    // fio gives the mean of its threads, in percent.
    clientCores: ((job.usr_cpu + job.sys_cpu) / 100) * threads,
  };
}

/**
 * @param {Owned} owned
 * @param {FioCase} one
 * @param {string} uri
 * @param {{ seconds: number, sizeBytes: number }} options
 */
export async function runFio(owned, one, uri, { seconds, sizeBytes }) {
  return fioOn(owned, one, ['--ioengine=nbd', `--uri=${uri}`], { seconds, sizeBytes });
}

/**
 * @param {Owned} owned
 * @param {FioCase} one
 * @param {readonly string[]} engine what the case runs on
 * @param {{ seconds: number, sizeBytes: number }} options
 */
export async function fioOn(owned, one, engine, { seconds, sizeBytes }) {
  const args = [...engine, ...fioArguments(one, seconds, sizeBytes)];
  return fioLoad(await succeed(owned, 'fio', args, { limitMs: seconds * 1000 + SPARE_MS }), one.connections);
}

/**
 * Copies the whole image to nowhere, or a file of its size into it, until the time is over; at least once.
 * @param {Owned} owned
 * @param {CopyCase} one
 * @param {string} uri
 * @param {{ seconds: number, sizeBytes: number, source: string }} options
 * @returns {Promise<Load>}
 */
export async function runCopy(owned, one, uri, { seconds, sizeBytes, source }) {
  const args = one.access === 'read' ? [uri, 'null:'] : [source, uri];
  let spentMs = 0;
  let requests = 0;
  while (spentMs < seconds * 1000) {
    const start = performance.now();
    await succeed(owned, 'nbdcopy', args, { limitMs: SPARE_MS });
    spentMs += performance.now() - start;
    requests += sizeBytes / COPY_REQUEST_BYTES;
  }
  return { rate: (requests / spentMs) * 1000, requests };
}
