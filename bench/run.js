// The bench's main program: scripts/bench installs and builds, then runs this.
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { allCases } from './cases.js';
import { measureDevices } from './devices.js';
import { footprints } from './footprint.js';
import { measureOnHost, programOf, usablePeers } from './host.js';
import { isOnDisk } from './image.js';
import { versions } from './machine.js';
import { parseOptions, UsageError, usage } from './options.js';
import { Owned } from './owned.js';
import { tsnbd } from './peers.js';
import { qcow2Limits } from './qcow2-limits.js';
import { reportText, versionLines, writeReport } from './report.js';
import { inTime } from './rounds.js';
import { startUp } from './start-up.js';

/** Starts are short and vary: more rounds than a case has. */
const START_ROUNDS = 10;

const checkout = dirname(dirname(fileURLToPath(import.meta.url)));

process.exitCode = await main(process.argv.slice(2));

/** @param {string[]} words */
async function main(words) {
  try {
    const options = parseOptions(words, checkout);
    if (options === 'help') return console.log(usage) ?? 0;
    if (options === 'list') return console.log(allCases.map(({ name }) => name).join('\n')) ?? 0;
    await bench(options);
    return 0;
  } catch (error) {
    if (error instanceof UsageError) {
      console.error(`bench: ${error.message}\n\n${usage}`);
      return 2;
    }
    console.error('bench: failed:', error);
    return 1;
  }
}

/** @param {import('./options.js').Options} options */
async function bench(options) {
  const found = versions(options.us);
  console.log(versionLines(found));
  mkdirSync(options.folder, { recursive: true });
  if (!isOnDisk(options.folder)) throw new UsageError(`${options.folder} is in memory: nothing there is ever cold`);
  const owned = new Owned(options.folder);
  try {
    const report = { versions: found, options, ...(await measureAll(owned, options)) };
    console.log(`\n${reportText(report)}\n`);
    const name = new Date().toISOString().slice(0, 19).replaceAll(':', '-');
    for (const path of writeReport(report, options.results, name)) console.log(path);
  } finally {
    owned.destroy();
  }
}

/**
 * @param {Owned} owned
 * @param {import('./options.js').Options} options
 */
async function measureAll(owned, options) {
  const peers = await usablePeers(owned, options);
  const onHost = options.cases.filter(({ transport }) => transport !== 'kernel');
  const onDevices = options.cases.flatMap((one) => (one.kind === 'fio' && one.transport === 'kernel' ? [one] : []));
  const results = await measureOnHost(owned, peers, onHost, options);
  const measured = options.selected ? [] : await inTime(besides(owned, peers, options), options.lateAt.host);
  if (!wantsGuest(options, onDevices)) return { results, measured };
  const devices = await measureDevices(onDevices, options, checkout);
  return { results: [...results, ...devices.results], measured: [...measured, ...devices.measured] };
}

/**
 * What is measured here besides the cases; what takes longest comes last.
 * @param {Owned} owned
 * @param {readonly import('./peers.js').Peer[]} peers
 * @param {import('./options.js').Options} options
 * @returns {import('./rounds.js').Step[]}
 */
function besides(owned, peers, options) {
  const us = tsnbd(programOf(options.us));
  const watched = options.quick ? peers.slice(0, 1) : peers;
  return [
    { what: 'start-up', act: () => startUp(owned, options.us, START_ROUNDS) },
    { what: 'limits of qcow2', act: () => qcow2Limits(owned, us, options) },
    { what: 'memory, and idle connections', act: () => footprints(owned, watched, options.lateAt.settling) },
  ];
}

/**
 * @param {import('./options.js').Options} options
 * @param {readonly import('./cases.js').Case[]} cases on devices
 */
function wantsGuest({ kernel, selected, lateAt }, cases) {
  if (!kernel || (selected && cases.length === 0)) return false;
  if (performance.now() < lateAt.boot) return true;
  console.log('left out, this machine is too slow for so short a run: what needs the bench kernel');
  return false;
}
