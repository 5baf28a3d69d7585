// The cases in the bench kernel: /dev/nbd0 attached by each program in turn; and how long an attach takes.
import { join } from 'node:path';
import { byNbdkit, byQemuNbd, byTsnbd, DeviceBench } from './guest.js';
import { inTurns } from './rounds.js';
import { median, spread } from './statistics.js';

/**
 * @typedef {import('./guest.js').Attacher} Attacher
 * @typedef {import('./cases.js').FioCase} FioCase
 * @typedef {import('./options.js').Options} Options
 * @typedef {import('./limits.js').Measured} Measured
 */

const MIB = 2 ** 20;
const IMAGE = '/tmp/image.raw';
const PATTERN = '/tmp/pattern.raw';
const IMAGE_BYTES = 256 * MIB;
const PSS_LIMIT_BYTES = 64 * MIB;
/** What may come on top of a C program's time when a process of ours stays: this many times `node -e 0`. */
const NODE_STARTS = 2.5;
const IDLE_SECONDS = 2;

/**
 * @param {readonly FioCase[]} cases
 * @param {Options} options
 * @param {string} checkout whose packages are used
 */
export async function measureDevices(cases, options, checkout) {
  const bench = await DeviceBench.boot();
  try {
    await bench.makeImage(IMAGE, IMAGE_BYTES);
    await bench.makeImage(PATTERN, IMAGE_BYTES);
    const packages = join(checkout, 'node_modules');
    const programs = bench.bring(options.us, packages, 'tsnbd');
    const before = options.versus === undefined ? undefined : bench.bring(options.versus, packages, 'before');
    const attachers = await usable(bench, [
      byTsnbd(`${programs}/tsnbd.js`, IMAGE),
      ...(before === undefined ? [] : [byTsnbd(`${before}/tsnbd.js`, IMAGE, 'tsnbd-before')]),
      ...[byNbdkit(IMAGE), byQemuNbd('threads', IMAGE), byQemuNbd('io_uring', IMAGE)].filter(
        ({ group }) => options.peers === undefined || options.peers.includes(group),
      ),
    ]);
    if (options.checks) {
      for (const attacher of attachers) await bench.checkBytes(attacher, IMAGE, PATTERN);
      console.log(
        `sha256 of what was read and written on ${attachers.map(({ name }) => name).join(', ')}'s device is right`,
      );
    }
    const { seconds, rounds } = options;
    const results = await inTurns(cases, attachers, rounds, (one, attacher) =>
      bench.measure(attacher, one, { seconds, sizeBytes: IMAGE_BYTES }),
    );
    const measured = options.selected
      ? []
      : [...(await attachTimes(bench, programs, options)), ...(await idleDevice(bench, programs))];
    return { results, measured };
  } finally {
    await bench.powerOff();
  }
}

/**
 * @param {DeviceBench} bench
 * @param {readonly Attacher[]} attachers ours first
 */
async function usable(bench, attachers) {
  /** @type {Attacher[]} */
  const found = [];
  for (const attacher of attachers) {
    try {
      await bench.attached(attacher, async () => {});
      found.push(attacher);
    } catch (error) {
      if (attacher.group.startsWith('tsnbd')) throw error;
      console.log(`left out: ${error instanceof Error ? error.message : error}`);
    }
  }
  return found;
}

/**
 * From the command to a device that can be read, in turns.
 * @param {DeviceBench} bench
 * @param {string} programs
 * @param {Options} options
 * @returns {Promise<Measured[]>}
 */
async function attachTimes(bench, programs, { rounds, quick }) {
  const images = [byTsnbd(`${programs}/tsnbd.js`, IMAGE), byQemuNbd('threads', IMAGE)];
  const exports = [
    byNbdkit(IMAGE, `node ${programs}/tsnbd-client.js`, 'tsnbd-client'),
    byNbdkit(IMAGE, 'nbd-client', 'nbd-client'),
  ];
  /** @type {Map<string, number[]>} */
  const times = new Map([['node -e 0', []]]);
  for (let round = 0; round < (quick ? 2 : Math.max(rounds, 5)); round++) {
    times.get('node -e 0')?.push(await bench.time('node -e 0'));
    for (const attacher of [...images, ...exports])
      times.set(attacher.name, [...(times.get(attacher.name) ?? []), await bench.timeToUsable(attacher)]);
  }
  const of = (/** @type {string} */ name) => median(times.get(name) ?? []);
  const limit = (/** @type {string} */ peer) => of(peer) + NODE_STARTS * of('node -e 0');
  return [...times].map(([name, values]) => ({
    what: name === 'node -e 0' ? 'in the guest: node -e 0' : `in the guest: ${name}, command to usable device`,
    unit: 'ms',
    value: spread(values),
    ...(name === 'tsnbd' ? { limit: limit('qemu-nbd'), because: `qemu-nbd -c + ${NODE_STARTS} node -e 0` } : {}),
    ...(name === 'tsnbd-client'
      ? { limit: limit('nbd-client'), because: `nbd-client + ${NODE_STARTS} node -e 0` }
      : {}),
  }));
}

/**
 * Memory and processor time of an attached image that nobody uses. There is no other Node in the guest with which ours
 * could share its pages.
 * @param {DeviceBench} bench
 * @param {string} programs
 * @returns {Promise<Measured[]>}
 */
async function idleDevice(bench, programs) {
  return bench.attached(byTsnbd(`${programs}/tsnbd.js`, IMAGE), async () => {
    const ticks = `cat $(pgrep -f attach-process.js | sed 's|.*|/proc/&/stat|') | sed 's/.*) //' | awk '{ sum += $12 + $13 } END { print sum }'`;
    const before = Number(await bench.ok(ticks));
    await bench.ok(`sleep ${IDLE_SECONDS}`);
    const spent = Number(await bench.ok(ticks)) - before;
    const pss = Number(
      await bench.ok(
        `cat $(pgrep -f attach-process.js | sed 's|.*|/proc/&/smaps_rollup|') | awk '/^Pss:/ { sum += $2 } END { print sum }'`,
      ),
    );
    return [
      {
        what: 'in the guest: one attached idle image, PSS',
        unit: 'MiB',
        value: spread([pss / 1024]),
        limit: PSS_LIMIT_BYTES / MIB,
      },
      {
        what: 'in the guest: one attached idle image, processor time',
        unit: 'ms/s',
        value: spread([(spent * 10) / IDLE_SECONDS]),
        limit: 0,
      },
    ];
  });
}
