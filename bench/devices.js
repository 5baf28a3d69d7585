// The cases in the bench kernel: a device attached by each program; and how long an attach takes.
import { join } from 'node:path';
import { boundAttach, boundServer } from './bound/build.js';
import { byBound, byLeast, byNbdkit, byQemuNbd, byTsnbd, DeviceBench } from './guest.js';
import { inTime, inTurns } from './rounds.js';
import { median, spread } from './statistics.js';

/**
 * @typedef {import('./guest.js').Attacher} Attacher
 * @typedef {import('./cases.js').FioCase} FioCase
 * @typedef {import('./options.js').Options} Options
 * @typedef {import('./limits.js').Measured} Measured
 */

const MIB = 2 ** 20;
/** Each device has an image of its own, a copy of the same: two modes of one program would not share one. */
const IMAGE_BYTES = 128 * MIB;
const CHECK_BYTES = 16 * MIB;
/** Where the bytes are checked and attaches are timed. */
const SPARE = { device: '/dev/nbd7', image: '/tmp/spare.raw' };
const PSS_LIMIT_BYTES = 64 * MIB;
/** What may come on top of a C program's time, in times of `node -e 0`: when a process of ours stays, and when none does. */
const NODE_STARTS = 2.5;
const NODE_STARTS_ALONE = 1.5;
const IDLE_SECONDS = 2;
const MS_PER_TICK = 10;
/** One, while one device is attached. */
const OUR_PROCESSES = '/proc/$(pgrep -f attach-process.js)';

/**
 * @param {readonly FioCase[]} cases
 * @param {Options} options
 * @param {string} checkout whose packages are used
 */
export async function measureDevices(cases, options, checkout) {
  const bench = await DeviceBench.boot();
  try {
    const packages = join(checkout, 'node_modules');
    const programs = bench.bring(options.us, packages, 'tsnbd');
    const before = options.versus === undefined ? undefined : bench.bring(options.versus, packages, 'before');
    const asked = [
      byTsnbd(`${programs}/tsnbd.js`),
      ...(before === undefined ? [] : [byTsnbd(`${before}/tsnbd.js`, 'tsnbd-before')]),
      ...[byNbdkit(), byQemuNbd('threads'), byQemuNbd('io_uring')].filter(
        ({ group }) => options.peers === undefined || options.peers.includes(group),
      ),
      ...(options.bound ? [byBound(boundServer(bench.guest.workDir))] : []),
    ];
    if (options.checks) {
      for (const attacher of asked) await bench.checkBytes(attacher, SPARE, CHECK_BYTES);
      console.log(
        `sha256 of what was read and written on devices is right: ${asked.map(({ name }) => name).join(', ')}`,
      );
    }
    const results = cases.length === 0 ? [] : await measureSpeed(bench, asked, cases, options);
    if (options.selected) return { results, measured: [] };
    await bench.makeImage(SPARE.image, IMAGE_BYTES);
    const besides = [
      { what: 'an idle device', act: () => idleDevice(bench, programs) },
      { what: 'times of attaching', act: () => attachTimes(bench, programs, packages, options) },
    ];
    return { results, measured: await inTime(besides, options.lateAt.devices) };
  } finally {
    await bench.powerOff();
  }
}

/**
 * All are attached at the same time; a device that nobody uses takes nothing from the others.
 * @param {DeviceBench} bench
 * @param {readonly Attacher[]} attachers ours first
 * @param {readonly FioCase[]} cases
 * @param {Options} options
 */
async function measureSpeed(bench, attachers, cases, { rounds, seconds, lateAt }) {
  const places = attachers.map((_, index) => ({ device: `/dev/nbd${index}`, image: `/tmp/image${index}.raw` }));
  const placed = attachers.map((attacher, index) => ({ ...attacher, place: places[index] ?? SPARE }));
  await bench.makeImage(SPARE.image, IMAGE_BYTES);
  for (const { place, ...attacher } of placed) {
    await bench.ok(`cp ${SPARE.image} ${place.image}`);
    await bench.attach(attacher, place);
  }
  const results = await inTurns(cases, placed, { rounds, lateAt: lateAt.devices }, (one, { place }) =>
    bench.measure(one, { device: place.device, seconds, sizeBytes: IMAGE_BYTES }),
  );
  for (const { place, ...attacher } of placed) {
    await bench.detach(attacher, place);
    await bench.ok(`rm ${place.image}`);
  }
  return results;
}

/**
 * From the command to a device that can be read, in turns.
 * @param {DeviceBench} bench
 * @param {string} programs
 * @param {string} packages
 * @param {Options} options
 * @returns {Promise<Measured[]>}
 */
async function attachTimes(bench, programs, packages, { rounds, quick, bound }) {
  const images = [byTsnbd(`${programs}/tsnbd.js`), byQemuNbd('threads')];
  const client = `node ${programs}/tsnbd-client.js`;
  const exports = [
    byNbdkit(client, 'tsnbd-client'),
    byNbdkit(client, 'tsnbd-client --no-persist', '--no-persist'),
    byNbdkit('nbd-client', 'nbd-client'),
  ];
  const least = bound ? byLeast(await boundAttach(bench.guest.workDir, packages)) : [];
  /** @type {Map<string, number[]>} */
  const times = new Map([['node -e 0', []]]);
  for (let round = 0; round < (quick ? 1 : Math.max(rounds, 5)); round++) {
    times.get('node -e 0')?.push(await bench.time('node -e 0'));
    for (const attacher of [...images, ...exports, ...least])
      times.set(attacher.name, [...(times.get(attacher.name) ?? []), await bench.timeToUsable(attacher, SPARE)]);
  }
  const of = (/** @type {string} */ name) => median(times.get(name) ?? []);
  const within = (/** @type {string} */ peer, /** @type {string} */ words, starts = NODE_STARTS) => ({
    limit: of(peer) + starts * of('node -e 0'),
    because: `${words} + ${starts} node -e 0`,
  });
  /** @type {Readonly<Record<string, { limit: number, because: string }>>} */
  const limits = {
    tsnbd: within('qemu-nbd', 'qemu-nbd -c'),
    'tsnbd-client': within('nbd-client', 'nbd-client'),
    'tsnbd-client --no-persist': within('nbd-client', 'nbd-client', NODE_STARTS_ALONE),
  };
  const besides = ['node -e 0', ...least.map(({ name }) => name)];
  return [...times].map(([name, values]) => ({
    what: `in the guest: ${name}${besides.includes(name) ? '' : ', command to usable device'}`,
    unit: 'ms',
    value: spread(values),
    ...limits[name],
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
  const attacher = byTsnbd(`${programs}/tsnbd.js`);
  await bench.attach(attacher, SPARE);
  const before = await ticks(bench);
  await bench.ok(`sleep ${IDLE_SECONDS}`);
  const spentMs = ((await ticks(bench)) - before) * MS_PER_TICK;
  const pssKib = Number(
    await bench.ok(`cat ${OUR_PROCESSES}/smaps_rollup | awk '/^Pss:/ { sum += $2 } END { print sum }'`),
  );
  await bench.detach(attacher, SPARE);
  return [
    {
      what: 'in the guest: one attached idle image, PSS',
      unit: 'MiB',
      value: spread([pssKib / 1024]),
      limit: PSS_LIMIT_BYTES / MIB,
    },
    {
      what: 'in the guest: one attached idle image, processor time',
      unit: 'ms/s',
      value: spread([spentMs / IDLE_SECONDS]),
      limit: 0,
    },
  ];
}

/** Processor time of the processes that stay behind an attach. @param {DeviceBench} bench */
async function ticks(bench) {
  // Behind the name, which is in parentheses, utime and stime are the 12th and 13th field.
  const script = `cat ${OUR_PROCESSES}/stat | sed 's/.*) //' | awk '{ sum += $12 + $13 } END { print sum }'`;
  return Number(await bench.ok(script));
}
