// The command line of scripts/bench.
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { allCases, targetCases } from './cases.js';

export const usage = `usage: scripts/bench [OPTION]...
Measures tsnbd side by side with nbdkit, qemu-nbd and nbd-server: every case, several rounds, in turns.
  --quick            the cases with a target, one short round on a small image, within 2 minutes
  --targets          only the cases with a target
  --only PATTERN     only cases whose name matches the regular expression; may be repeated
  --peers NAMES      only these peers, by commas: nbdkit, qemu-nbd, nbd-server
  --rounds N         how often each case is measured (3)
  --bound            also a server in C that only reads and sends, in each of its ways, the disk alone in cold cases, and the
                     least that an attach takes
  --seconds S        how long each time (2)
  --size MIB         size of the image (1024)
  --us PATH          measure the dist/ of another checkout in place of this one's
  --versus PATH      compare with the dist/ of another checkout too
  --folder PATH      where the image is made; a disk (/var/tmp)
  --results PATH     where the table, its data in JSON and the plot are written (bench/results)
  --no-kernel        leave out what needs the bench kernel
  --no-checks        do not compare what was read and written: for tuning only, the figures do not count
  --list             print the names of the cases and stop
  --help             print this and stop`;

/**
 * @typedef {object} Options
 * @property {readonly import('./cases.js').Case[]} cases
 * @property {readonly string[] | undefined} peers groups; undefined for all
 * @property {boolean} quick
 * @property {number} rounds
 * @property {number} seconds
 * @property {number} sizeBytes
 * @property {string} us a checkout
 * @property {string | undefined} versus
 * @property {boolean} bound
 * @property {string} folder
 * @property {string} results
 * @property {boolean} kernel
 * @property {boolean} checks
 * @property {{ host: number, settling: number, boot: number, devices: number }} lateAt milliseconds from the start, after which a
 *   quick run begins nothing more here, waits for no server to become quiet, does not boot the bench kernel, begins nothing more there
 * @property {boolean} selected some cases were chosen by name: only they are measured, nothing else
 */

/** So that a quick run, with the build before it, ends within 2 minutes on a slow machine too. */
const QUICK_LATE_AT = { host: 45_000, settling: 58_000, boot: 65_000, devices: 80_000 };

/** Wrong usage; the message is for the user. */
export class UsageError extends Error {}

/**
 * @param {string[]} words
 * @param {string} checkout
 * @returns {Options | 'help' | 'list'}
 */
export function parseOptions(words, checkout) {
  const values = parsed(words);
  if (values.help) return 'help';
  if (values.list) return 'list';
  const quick = values.quick === true;
  return {
    cases: chosenCases(quick || values.targets === true ? targetCases : allCases, values.only, values['no-kernel']),
    peers: values.peers?.split(',') ?? (quick ? ['nbdkit', 'qemu-nbd'] : undefined),
    quick,
    rounds: Math.ceil(positive('rounds', values.rounds ?? (quick ? '1' : '3'))),
    seconds: positive('seconds', values.seconds ?? (quick ? '0.5' : '2')),
    sizeBytes: positive('size', values.size ?? (quick ? '256' : '1024')) * 2 ** 20,
    us: resolve(values.us ?? checkout),
    versus: values.versus === undefined ? undefined : resolve(values.versus),
    bound: values.bound === true,
    folder: resolve(values.folder ?? '/var/tmp'),
    results: resolve(values.results ?? join(checkout, 'bench/results')),
    kernel: values['no-kernel'] !== true,
    checks: values['no-checks'] !== true,
    lateAt: quick ? QUICK_LATE_AT : { host: Infinity, settling: Infinity, boot: Infinity, devices: Infinity },
    selected: values.only !== undefined,
  };
}

/** @param {string[]} words */
function parsed(words) {
  const text = /** @type {const} */ ({ type: 'string' });
  const flag = /** @type {const} */ ({ type: 'boolean' });
  try {
    return parseArgs({
      args: words,
      options: {
        ...{ quick: flag, targets: flag, list: flag, help: flag, bound: flag, 'no-kernel': flag, 'no-checks': flag },
        ...{ only: { type: /** @type {const} */ ('string'), multiple: /** @type {const} */ (true) } },
        ...{
          peers: text,
          rounds: text,
          seconds: text,
          size: text,
          us: text,
          versus: text,
          folder: text,
          results: text,
        },
      },
    }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/**
 * @param {readonly import('./cases.js').Case[]} cases
 * @param {readonly string[] | undefined} patterns
 * @param {boolean | undefined} withoutKernel
 */
function chosenCases(cases, patterns, withoutKernel) {
  const wanted = patterns?.map(expression);
  const chosen = cases.filter(
    ({ name, transport }) =>
      !(withoutKernel && transport === 'kernel') && (wanted === undefined || wanted.some((one) => one.test(name))),
  );
  if (chosen.length === 0) throw new UsageError('no case has such a name; --list prints them');
  return chosen;
}

/** @param {string} pattern */
function expression(pattern) {
  try {
    return new RegExp(pattern);
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/**
 * @param {string} name
 * @param {string} value
 */
function positive(name, value) {
  const number = Number(value);
  if (!(number > 0)) throw new UsageError(`--${name} takes a number above 0`);
  return number;
}
