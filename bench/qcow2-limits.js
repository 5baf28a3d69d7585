// What qcow2 costs beside the same without it: a large image beside an empty one, and a backing file beside none.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { allCases, fio } from './cases.js';
import { makeImage, settle } from './image.js';
import { runFio } from './load.js';
import { measure } from './measure.js';
import { pssBytes } from './processes.js';
import { startServer } from './server.js';
import { spread } from './statistics.js';

/**
 * @typedef {import('./owned.js').Owned} Owned
 * @typedef {import('./peers.js').Peer} Peer
 * @typedef {import('./limits.js').Measured} Measured
 */

const TIB = 2 ** 40;
const MIB = 2 ** 20;
const OPENING_LIMIT_MS = 50;
const PSS_LIMIT_MIB = 100;
/** A start is short, and varies. */
const OPENINGS_A_ROUND = 3;
const BACKED_SHARE_MIN = 0.8;
const BACKING_BYTES = 256 * MIB;
/** Enough reads to fill the cache of L2 tables. */
const LOAD = fio('unix randread 4k d16');
const PLAIN = 'qcow2 randread 4k d32';

/**
 * @param {Owned} owned
 * @param {Peer} us
 * @param {{ rounds: number, seconds: number }} options
 * @returns {Promise<Measured[]>}
 */
export async function qcow2Limits(owned, us, options) {
  return [...(await largeImage(owned, us, options)), await backingFile(owned, us, options)];
}

/**
 * An image of 1 TiB all of whose tables are there: 16 million clusters, in 160 MiB of tables.
 * @param {Owned} owned
 * @param {Peer} us
 * @param {{ rounds: number, seconds: number }} options
 * @returns {Promise<Measured[]>}
 */
async function largeImage(owned, us, { rounds, seconds }) {
  const [large, empty] = [join(owned.folder, 'large.qcow2'), join(owned.folder, 'empty.qcow2')];
  create(large, TIB, 'metadata');
  create(empty, MIB, 'off');
  /** @type {number[]} */
  const more = [];
  /** @type {number[]} */
  const loaded = [];
  for (let opening = 0; opening < OPENINGS_A_ROUND * rounds; opening++) {
    const [none, noneMs] = await opened(owned, us, empty);
    await none.stop();
    const [server, serverMs] = await opened(owned, us, large);
    try {
      more.push(serverMs - noneMs);
      if (opening % OPENINGS_A_ROUND > 0) continue;
      await runFio(owned, LOAD, server.uri, { seconds, sizeBytes: TIB });
      loaded.push(pssBytes(server.pid) / MIB);
    } finally {
      await server.stop();
    }
  }
  return [
    { what: 'qcow2: opening 1 TiB, beyond an empty one', unit: 'ms', value: spread(more), limit: OPENING_LIMIT_MS },
    {
      what: 'qcow2: PSS of a server of 1 TiB, after random reads',
      unit: 'MiB',
      value: spread(loaded),
      limit: PSS_LIMIT_MIB,
    },
  ];
}

/**
 * @param {Owned} owned
 * @param {Peer} us
 * @param {string} image
 * @returns {Promise<[import('./server.js').Server, number]>} a server, and how long it took to start, in milliseconds
 */
async function opened(owned, us, image) {
  const before = performance.now();
  const server = await startServer(owned, us, 'unix', image, { format: 'qcow2', direct: false });
  return [server, performance.now() - before];
}

/**
 * @param {Owned} owned
 * @param {Peer} us
 * @param {{ rounds: number, seconds: number }} options
 * @returns {Promise<Measured>}
 */
async function backingFile(owned, us, { rounds, seconds }) {
  const image = join(owned.folder, 'backing.raw');
  makeImage(image, BACKING_BYTES);
  settle(image);
  const rate = async (/** @type {string} */ name) => {
    const one = allCases.find((each) => each.name === name);
    if (one === undefined) throw new Error(`there is no case '${name}'`);
    return (await measure(owned, us, one, { small: { path: image, sizeBytes: BACKING_BYTES }, source: image, seconds }))
      .rate;
  };
  const costs = [];
  for (let round = 0; round < rounds; round++) costs.push((await rate(PLAIN)) / (await rate(`${PLAIN} backed`)));
  return {
    what: `${PLAIN}: without a backing file, divided by through one`,
    unit: 'times',
    value: spread(costs),
    limit: 1 / BACKED_SHARE_MIN,
    because: `through one at least ${BACKED_SHARE_MIN} of without`,
  };
}

/**
 * @param {string} path
 * @param {number} sizeBytes
 * @param {'off' | 'metadata'} preallocation
 */
function create(path, sizeBytes, preallocation) {
  const options = ['-o', `preallocation=${preallocation}`];
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, path, String(sizeBytes)]);
}
