// The cases on this machine: servers over unix sockets and TCP.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { boundServer } from './bound/build.js';
import { fio } from './cases.js';
import { checkBytes, checkColdBytes, checkDirectBytes, checkQcow2Bytes } from './checks.js';
import { makeImage, settle } from './image.js';
import { fioOn } from './load.js';
import { measure, needsLarge } from './measure.js';
import { UsageError } from './options.js';
import { bounds, disks, others, tsnbd } from './peers.js';
import { canServe, inTurns, isOfImageServers } from './rounds.js';
import { canHaveDefault, DEFAULT_BYTES, SEND_LIMIT } from './send-limit.js';
import { ServerError, startServer } from './server.js';

/**
 * @typedef {import('./owned.js').Owned} Owned
 * @typedef {import('./peers.js').Peer} Peer
 * @typedef {import('./cases.js').Case} Case
 * @typedef {import('./options.js').Options} Options
 */

const CHECK_BYTES = 64 * 2 ** 20;
const QUICK_CHECK_BYTES = 16 * 2 ** 20;
const PROBE_BYTES = 2 ** 20;
const PROBE_SECONDS = 0.05;
const DISK_PROBE = fio('unix randread 4k d1 cold');
/** How much larger the large image is. */
const LARGE = 4;

/**
 * @param {Owned} owned
 * @param {readonly Peer[]} peers
 * @param {readonly Case[]} allCases
 * @param {Options} options
 */
export async function measureOnHost(owned, peers, allCases, options) {
  const cases = allCases.filter((one) => !isUnderLimit(one) || canHaveDefault());
  if (cases.length < allCases.length)
    console.log(
      `left out: ${SEND_LIMIT} cannot be ${DEFAULT_BYTES}, as ${allCases
        .filter(isUnderLimit)
        .map(({ name }) => name)
        .join(', ')} would have it`,
    );
  if (cases.length === 0) return [];
  if (options.checks) await checkAll(owned, peers, cases, options.quick ? QUICK_CHECK_BYTES : CHECK_BYTES);
  const { seconds, sizeBytes } = options;
  const source = join(owned.folder, 'source.raw');
  const small = { path: join(owned.folder, 'image.raw'), sizeBytes };
  const large = { path: join(owned.folder, 'large.raw'), sizeBytes: LARGE * sizeBytes };
  makeImage(small.path, small.sizeBytes);
  if (cases.some(needsLarge)) makeImage(large.path, large.sizeBytes);
  if (cases.some(({ kind, access }) => kind === 'nbdcopy' && access === 'write')) makeImage(source, sizeBytes);
  for (const path of [small.path, large.path, source]) if (existsSync(path)) settle(path);
  const all = [...peers, ...(options.bound ? await usableDisks(owned, cases, small) : [])];
  return inTurns(cases, all, { rounds: options.rounds, lateAt: options.lateAt.host }, (one, peer) =>
    named(`${peer.name}, ${one.name}`, measure(owned, peer, one, { small, large, source, seconds })),
  );
}

/** @param {Case} one */
function isUnderLimit(one) {
  return one.kind === 'fio' && one.underLimit === true;
}

/**
 * Ours first, then those that were asked for and start here (io_uring is forbidden on some machines).
 * @param {Owned} owned
 * @param {Options} options
 */
export async function usablePeers(owned, { us, versus, peers, bound }) {
  const ours = [tsnbd(programOf(us)), ...(versus === undefined ? [] : [tsnbd(programOf(versus), 'tsnbd-before')])];
  const asked = [
    ...ours,
    ...others.filter(({ group }) => peers === undefined || peers.includes(group)),
    ...(bound ? bounds(boundServer(owned.folder)) : []),
  ];
  const image = join(owned.folder, 'probe.raw');
  makeImage(image, PROBE_BYTES);
  /** @type {Peer[]} */
  const found = [];
  for (const peer of asked) {
    try {
      await (await startServer(owned, peer, 'unix', image)).stop();
      found.push(peer);
    } catch (error) {
      if (!(error instanceof ServerError) || ours.includes(peer)) throw error;
      console.log(`left out: ${error.message}`);
    }
  }
  return found;
}

/**
 * The disk itself, in each way in which it can be read here, where a case waits for it.
 * @param {Owned} owned
 * @param {readonly Case[]} cases
 * @param {import('./measure.js').Raw} image
 */
async function usableDisks(owned, cases, { path, sizeBytes }) {
  const found = [];
  for (const disk of disks) {
    if (!cases.some((one) => canServe(one, disk))) continue;
    try {
      await fioOn(owned, DISK_PROBE, [...disk.engine, `--filename=${path}`], { seconds: PROBE_SECONDS, sizeBytes });
      found.push(disk);
    } catch (error) {
      console.log(`left out: ${disk.name} cannot be read here: ${error instanceof Error ? error.message : error}`);
    }
  }
  return found;
}

/**
 * Whoever fails, it is said what was being done.
 * @template T
 * @param {string} what
 * @param {Promise<T>} done
 */
async function named(what, done) {
  try {
    return await done;
  } catch (error) {
    throw new Error(`${what}: ${error instanceof Error ? error.message : error}`, { cause: error });
  }
}

/** @param {string} folder a checkout */
export function programOf(folder) {
  const program = join(folder, 'dist/tsnbd.js');
  if (!existsSync(program)) throw new UsageError(`${program} is not there: build it first`);
  return program;
}

/**
 * Whoever is measured is checked in each way that it is measured in.
 * @param {Owned} owned
 * @param {readonly Peer[]} peers
 * @param {readonly Case[]} cases
 * @param {number} sizeBytes
 */
async function checkAll(owned, peers, cases, sizeBytes) {
  const check = async (
    /** @type {string} */ words,
    /** @type {(one: Case) => boolean} */ concerns,
    /** @type {(peer: Peer) => Promise<void>} */ act,
  ) => {
    const concerned = cases.filter(concerns);
    const checked = peers.filter((peer) => concerned.some((one) => canServe(one, peer)));
    if (checked.length === 0) return;
    for (const peer of checked) await named(`${peer.name} ${words}`, act(peer));
    const names = checked.map(({ name }) => name).join(', ');
    console.log(`sha256 of what was read and written ${words} is right: ${names}`);
  };
  for (const transport of /** @type {const} */ (['unix', 'tcp'])) {
    const concerns = (/** @type {Case} */ one) => one.transport === transport && !isOfImageServers(one);
    await check(`over ${transport}`, concerns, (peer) => checkBytes(owned, peer, transport, sizeBytes));
  }
  const isDirect = (/** @type {Case} */ one) => one.kind === 'fio' && one.cache === 'direct';
  await check('past the page cache', isDirect, (peer) => checkDirectBytes(owned, peer, sizeBytes));
  const isCold = (/** @type {Case} */ one) => one.kind === 'fio' && one.cache === 'cold' && !isOfImageServers(one);
  await check('from a disk', isCold, (peer) => checkColdBytes(owned, peer, sizeBytes));
  for (const kind of /** @type {const} */ (['full', 'new', 'backed'])) {
    const concerns = (/** @type {Case} */ one) => one.kind === 'fio' && one.qcow2 === kind;
    await check(`with a qcow2 image (${kind})`, concerns, (peer) => checkQcow2Bytes(owned, peer, kind, sizeBytes));
  }
}
