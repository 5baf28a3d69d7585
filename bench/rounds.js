// The order of measuring, and from it the results of every case.
import { performance } from 'node:perf_hooks';
import { resultOf } from './results.js';

/**
 * @typedef {import('./measure.js').Sample} Sample
 * @typedef {import('./results.js').CaseResult} CaseResult
 */

/**
 * Round after round, each case after the other, each peer in turn; who is first changes from case to case and from round
 * to round.
 * @template {import('./cases.js').Case} C
 * @template {{ name: string, group: string, serves?: (one: import('./cases.js').Case) => boolean }} P
 * @param {readonly C[]} cases
 * @param {readonly P[]} peers ours first
 * @param {{ rounds: number, lateAt: number }} limits a case is not begun after `lateAt` (of performance.now()), and is told
 * @param {(one: C, peer: P) => Promise<Sample>} measure
 * @returns {Promise<CaseResult[]>}
 */
export async function inTurns(cases, peers, { rounds, lateAt }, measure) {
  /** @type {Map<string, Sample[]>} */
  const samples = new Map();
  const of = (/** @type {C} */ one, /** @type {{ name: string }} */ peer) => {
    const key = `${one.name}\n${peer.name}`;
    return samples.get(key) ?? samples.set(key, []).get(key) ?? [];
  };
  const peersOf = (/** @type {C} */ one) => peers.filter((peer) => canServe(one, peer));
  for (let round = 0; round < rounds; round++)
    for (const [index, one] of cases.entries()) {
      if (performance.now() > lateAt) break;
      const able = peersOf(one);
      const first = (round + index) % able.length;
      for (const peer of [...able.slice(first), ...able.slice(0, first)]) of(one, peer).push(await measure(one, peer));
      tell(`round ${round + 1} of ${rounds}, case ${index + 1} of ${cases.length}: ${one.name}`);
    }
  tell('');
  const measured = cases.filter((one) => peersOf(one).every((peer) => of(one, peer).length === rounds));
  const late = cases.filter((one) => !measured.includes(one)).map(({ name }) => name);
  tellLate(late);
  return measured.map((one) => resultOf(one, peersOf(one), (peer) => of(one, peer)));
}

/**
 * Whether a server takes part: not every one knows qcow2, or goes past the page cache.
 * @param {import('./cases.js').Case} one
 * @param {{ serves?: (one: import('./cases.js').Case) => boolean }} peer
 */
export function canServe(one, { serves }) {
  return serves === undefined ? !isOfImageServers(one) : serves(one);
}

/** @param {import('./cases.js').Case} one */
export function isOfImageServers(one) {
  return one.kind === 'fio' && (one.qcow2 !== undefined || one.cache === 'direct');
}

/**
 * What is measured besides the cases.
 * @typedef {{ what: string, act: () => Promise<import('./limits.js').Measured[]> }} Step
 */

/**
 * One step after the other; none is begun after `lateAt` (of performance.now()), and is told.
 * @param {readonly Step[]} steps
 * @param {number} lateAt
 */
export async function inTime(steps, lateAt) {
  const measured = [];
  const late = [];
  for (const { what, act } of steps) {
    if (performance.now() > lateAt) late.push(what);
    else measured.push(...(await act()));
  }
  tellLate(late);
  return measured;
}

/** @param {readonly string[]} late what was not measured for want of time */
export function tellLate(late) {
  if (late.length > 0) console.log(`left out, this machine is too slow for so short a run: ${late.join(', ')}`);
}

/** Progress, for who watches: on a terminal one line that changes. @param {string} progress */
function tell(progress) {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${progress}`);
  else if (progress !== '') process.stderr.write(`${progress}\n`);
}
