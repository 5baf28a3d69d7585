// Figures that are no speed of a case: memory, start-up. Some have a limit.
import { text } from './table.js';

/**
 * @typedef {object} Measured
 * @property {string} what
 * @property {string} unit
 * @property {import('./statistics.js').Spread} value
 * @property {number} [limit] the value must not be above it
 * @property {string} [because] how the limit is reckoned
 */

/** @param {readonly Measured[]} measured */
export function limitTable(measured) {
  const rows = measured.map(({ what, unit, value, limit, because }) => [
    what,
    unit,
    figure(value.median),
    value.lowest === value.highest ? '' : `${figure(value.lowest)} to ${figure(value.highest)}`,
    limit === undefined ? '' : `${value.median <= limit ? 'keeps' : 'BREAKS'} ${figure(limit)}`,
    because ?? '',
  ]);
  return text([['besides', 'unit', 'median', 'spread', 'limit', ''], ...rows]);
}

/** @param {number} value */
function figure(value) {
  return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}
