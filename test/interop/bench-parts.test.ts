import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { fio } from '../../bench/cases.js';
import { checkBytes } from '../../bench/checks.js';
import { measureDevices } from '../../bench/devices.js';
import { footprints } from '../../bench/footprint.js';
import { byTsnbd, DeviceBench } from '../../bench/guest.js';
import type { Measured } from '../../bench/limits.js';
import { parseOptions } from '../../bench/options.js';
import { Owned } from '../../bench/owned.js';
import { type Peer, tsnbd } from '../../bench/peers.js';
import { qcow2Limits } from '../../bench/qcow2-limits.js';
import { startUp } from '../../bench/start-up.js';
import { longTest } from '../long.js';

// What the bench measures besides speed, as short as can be: no figure of it says anything.

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const MIB = 2 ** 20;
const LOAD = fio('kernel randread 4k d1');
const us = tsnbd(join(ROOT, 'dist/tsnbd.js'));

let folder: string;
let owned: Owned;

beforeEach(() => {
  folder = mkdtempSync('/var/tmp/tsnbd-bench-parts-');
  owned = new Owned(folder);
});
afterEach(() => {
  owned.destroy();
  expect(readdirSync(folder)).toEqual([]);
  rmSync(folder, { recursive: true });
});

/** Processor time may be none; of two starts that hardly differ either may be the longer one. */
const mayBeNone = (what: string) => what.includes('processor time') || what.includes('beyond');

/** Each name, its unit, and whether it has a limit; all have been measured. */
const table = (measured: readonly Measured[]) => {
  for (const { what, value } of measured)
    expect({ what, is: mayBeNone(what) ? Number.isFinite(value.median) : value.median > 0 }).toEqual({
      what,
      is: true,
    });
  return measured.map(({ what, unit, limit }) => `${what}, ${unit}${limit === undefined ? '' : ', limited'}`);
};

describe('besides the cases', () => {
  test('a start is timed beside one of Node', async () => {
    expect(table(await startUp(owned, ROOT, 1))).toEqual(['node -e 0, ms', 'tsnbd --version, ms']);
  });

  longTest('a large qcow2 image is opened and read, and one with a backing file beside one without', async () => {
    expect(table(await qcow2Limits(owned, us, { rounds: 1, seconds: 0.2 }))).toEqual([
      'qcow2: opening 1 TiB, beyond an empty one, ms, limited',
      'qcow2: PSS of a server of 1 TiB, after random reads, MiB, limited',
      'qcow2 randread 4k d32: without a backing file, divided by through one, times, limited',
    ]);
  });

  test('memory is told of a server that nobody uses, and of one under load; of idle ones if there is time', async () => {
    expect(table(await footprints(owned, [us], performance.now()))).toEqual([
      'tsnbd: PSS without a connection, MiB',
      'tsnbd: PSS under load, unix randread 256k d16 c4, MiB',
    ]);
  });
});

test('a server that loses what it is given to write is found out', async () => {
  const forgetful: Peer = {
    name: 'forgetful',
    group: 'forgetful',
    command: (address, image) => [
      'nbdkit',
      '-f',
      '-U',
      address.kind === 'unix' ? address.path : '',
      '--filter=cow',
      'file',
      image,
    ],
  };
  await expect(checkBytes(owned, forgetful, 'unix', MIB)).rejects.toThrow(
    'forgetful over unix wrote other bytes than it was given',
  );
});

describe('in the bench kernel', () => {
  longTest('devices are compared, their speed measured, an idle one and attaches', async () => {
    const options = parseOptions(['--quick', '--seconds', '0.2', '--peers', 'nbdkit'], ROOT);
    if (typeof options === 'string') throw new Error(options);
    const lateAt = { ...options.lateAt, devices: Number.POSITIVE_INFINITY };
    const { results, measured } = await measureDevices([LOAD], { ...options, lateAt }, ROOT);
    const figures = results.map(({ name, figures: each }) => [
      name,
      each.map(({ peer, rate }) => [peer, rate.median > 0]),
    ]);
    expect(figures).toEqual([
      [
        LOAD.name,
        [
          ['tsnbd', true],
          ['nbdkit', true],
        ],
      ],
    ]);
    const usable = (attacher: string) => `in the guest: ${attacher}, command to usable device, ms`;
    expect(table(measured)).toEqual([
      'in the guest: one attached idle image, PSS, MiB, limited',
      'in the guest: one attached idle image, processor time, ms/s, limited',
      'in the guest: node -e 0, ms',
      `${usable('tsnbd')}, limited`,
      usable('qemu-nbd'),
      `${usable('tsnbd-client')}, limited`,
      `${usable('tsnbd-client --no-persist')}, limited`,
      usable('nbd-client'),
    ]);
  });

  test('a device that gives or takes other bytes is found out, and one is timed and measured', async () => {
    const bench = await DeviceBench.boot();
    try {
      const programs = bench.bring(ROOT, join(ROOT, 'node_modules'), 'tsnbd');
      const right = byTsnbd(`${programs}/tsnbd.js`);
      const place = { device: '/dev/nbd7', image: '/tmp/image.raw' };
      const other = { ...right, attach: () => right.attach({ ...place, image: '/tmp/other.raw' }) };
      const snapshot = { ...right, attach: (at: typeof place) => `${right.attach(at)} -s` };
      await bench.makeImage('/tmp/other.raw', MIB);
      await expect(bench.checkBytes(other, place, MIB)).rejects.toThrow(
        'the device gave other bytes than the image has',
      );
      await bench.detach(right, place);
      await expect(bench.checkBytes(snapshot, place, MIB)).rejects.toThrow(
        'the image got other bytes than the device was given',
      );
      expect(await bench.timeToUsable(right, place)).toBeGreaterThan(await bench.time('true'));
      await bench.attach(right, place);
      expect((await bench.measure(LOAD, { device: place.device, seconds: 0.2, sizeBytes: MIB })).rate).toBeGreaterThan(
        0,
      );
    } finally {
      await bench.powerOff();
    }
  });
});
