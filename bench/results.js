// From samples to what is told: for each case every peer's speed and cost, and ours divided by it.
import { median, meets, ratio, spread } from './statistics.js';

/**
 * @typedef {import('./cases.js').Case} Case
 * @typedef {{ name: string, group: string }} Peer
 * @typedef {import('./measure.js').Sample} Sample
 * @typedef {import('./statistics.js').Spread} Spread
 */

/**
 * @typedef {object} Comparison
 * @property {string} peer the name of the peer; of qemu-nbd's modes the better one, unless each has a target of its own
 * @property {Spread} ratio ours divided by the peer's
 * @property {number} [target]
 * @property {boolean} [met]
 * @property {number} [bound] the same ratio, of the bound in its best way, where it was measured
 */

/**
 * @typedef {object} Figures
 * @property {string} peer
 * @property {Spread} rate requests a second
 * @property {number} [cpuMicros] processor time of the server, a request
 * @property {number} [p99Micros]
 * @property {number} [clientCores]
 */

/**
 * @typedef {object} CaseResult
 * @property {string} name
 * @property {Figures[]} figures by peer, ours first
 * @property {Comparison[]} speed
 * @property {Comparison[]} cpu
 */

/**
 * @param {Case} one
 * @param {readonly Peer[]} peers
 * @param {(peer: Peer) => readonly Sample[]} samples by round, of every peer as many
 * @returns {CaseResult}
 */
export function resultOf(one, peers, samples) {
  const [us, ...rest] = peers;
  if (us === undefined) throw new Error('nobody was measured');
  const groups = [...new Set(rest.map(({ group }) => group))];
  const bounds = rest.filter(({ group }) => group === 'bound');
  const compare = (/** @type {'speed' | 'cpu'} */ what) => {
    const values = (/** @type {Peer} */ peer) => samples(peer).map(what === 'speed' ? rateOf : costOf);
    const [best] = bestFirst(bounds, (peer) => median(values(peer)), what);
    return groups.flatMap((group) => {
      const modes = bestFirst(
        rest.filter((peer) => peer.group === group),
        (peer) => median(values(peer)),
        what,
      );
      return modes.slice(0, haveOwnTargets(modes, one[what]) ? modes.length : 1).flatMap((mode) => {
        const [ours, theirs] = [values(us), values(mode)];
        if ([...ours, ...theirs].some(Number.isNaN)) return [];
        const bound = best === undefined || best === mode ? {} : { bound: ratio(values(best), theirs).median };
        return [{ ...judged(mode, ratio(ours, theirs), one[what], what), ...bound }];
      });
    });
  };
  return {
    name: one.name,
    figures: peers.map((peer) => figuresOf(peer, samples(peer))),
    speed: compare('speed'),
    cpu: compare('cpu'),
  };
}

/**
 * A program's modes, first the one that is hardest to beat: the fastest, or the cheapest.
 * @param {readonly Peer[]} modes
 * @param {(peer: Peer) => number} value
 * @param {'speed' | 'cpu'} what
 */
function bestFirst(modes, value, what) {
  return [...modes].sort((left, right) => (what === 'speed' ? value(right) - value(left) : value(left) - value(right)));
}

/**
 * @param {readonly Peer[]} modes of one program
 * @param {import('./cases.js').Target | undefined} targets
 */
function haveOwnTargets(modes, targets) {
  return modes.some(({ name, group }) => name !== group && targets !== undefined && name in targets);
}

/**
 * @param {Peer} peer
 * @param {Spread} value
 * @param {import('./cases.js').Target | undefined} targets
 * @param {'speed' | 'cpu'} what
 * @returns {Comparison}
 */
function judged(peer, value, targets, what) {
  const [own, ofGroup] = /** @type {(keyof import('./cases.js').Target)[]} */ ([peer.name, peer.group]);
  const target = (own && targets?.[own]) ?? (ofGroup && targets?.[ofGroup]);
  const verdict = target === undefined ? {} : { target, met: meets(value.median, target, what) };
  return { peer: peer.name, ratio: value, ...verdict };
}

/**
 * @param {Peer} peer
 * @param {readonly Sample[]} samples
 * @returns {Figures}
 */
function figuresOf(peer, samples) {
  const costs = samples.map(costOf).filter((cost) => !Number.isNaN(cost));
  const waits = samples.flatMap(({ p99Micros }) => p99Micros ?? []);
  const clients = samples.flatMap(({ clientCores }) => clientCores ?? []);
  return {
    peer: peer.name,
    rate: spread(samples.map(rateOf)),
    ...(costs.length > 0 ? { cpuMicros: median(costs) } : {}),
    ...(waits.length > 0 ? { p99Micros: median(waits) } : {}),
    ...(clients.length > 0 ? { clientCores: median(clients) } : {}),
  };
}

/** @param {Sample} sample */
function rateOf({ rate }) {
  return rate;
}

/** Microseconds a request. @param {Sample} sample */
function costOf({ cpuSeconds = Number.NaN, requests }) {
  return (cpuSeconds / requests) * 1_000_000;
}
