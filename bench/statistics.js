// What several rounds of one case say together.

/**
 * @typedef {object} Spread
 * @property {number} median
 * @property {number} lowest
 * @property {number} highest
 */

/**
 * @param {readonly number[]} values at least one
 * @returns {Spread}
 */
export function spread(values) {
  const sorted = [...values].sort((left, right) => left - right);
  return { median: median(sorted), lowest: sorted[0] ?? Number.NaN, highest: sorted.at(-1) ?? Number.NaN };
}

/** @param {readonly number[]} values at least one */
export function median(values) {
  if (values.length === 0) throw new RangeError('nothing has no median');
  const sorted = [...values].sort((left, right) => left - right);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/**
 * Ours divided by theirs, round by round: what was measured side by side is compared, so that a machine that gets slower
 * or faster during the run changes both.
 * @param {readonly number[]} ours by round
 * @param {readonly number[]} theirs by round
 * @returns {Spread}
 */
export function ratio(ours, theirs) {
  if (ours.length !== theirs.length) throw new RangeError('a ratio needs as many rounds of both');
  return spread(ours.map((value, round) => value / (theirs[round] ?? Number.NaN)));
}

/**
 * Whether a ratio reaches its target: a speed at least, a cost at most.
 * @param {number} value
 * @param {number} target
 * @param {'speed' | 'cpu'} what
 */
export function meets(value, target, what) {
  return what === 'speed' ? value >= target : value <= target;
}
