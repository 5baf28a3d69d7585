// How long our program takes to start, beside a Node that does nothing.
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { succeed } from './programs.js';
import { spread } from './statistics.js';

/**
 * @typedef {import('./owned.js').Owned} Owned
 * @typedef {import('./limits.js').Measured} Measured
 */

const LIMIT_MS = 30_000;

/**
 * @param {Owned} owned
 * @param {string} us a checkout
 * @param {number} rounds
 * @returns {Promise<Measured[]>}
 */
export async function startUp(owned, us, rounds) {
  /** @type {[string, string[], number[]][]} */
  const commands = [
    ['node -e 0', ['-e', '0'], []],
    ['tsnbd --version', [join(us, 'dist/tsnbd.js'), '--version'], []],
  ];
  for (let round = 0; round < rounds; round++)
    for (const [, args, times] of commands) {
      const start = performance.now();
      await succeed(owned, process.execPath, args, { limitMs: LIMIT_MS });
      times.push(performance.now() - start);
    }
  return commands.map(([what, , times]) => ({ what, unit: 'ms', value: spread(times) }));
}
