import { describe, expect, test } from 'vitest';
import { fio } from '../../bench/cases.js';
import { fioArguments, fioLoad } from '../../bench/load.js';

const MIB = 2 ** 20;

describe('what fio is told', () => {
  test('the time in milliseconds: fio takes 0.5 for no limit', () => {
    expect(fioArguments(fio('unix randread 4k d16'), 0.5, MIB)).toEqual(
      expect.arrayContaining([
        '--runtime=500ms',
        '--ramp_time=250ms',
        '--time_based',
        '--bs=4096',
        '--iodepth=16',
        '--numjobs=1',
      ]),
    );
  });

  test('to end after each block once, where that is the case', () => {
    expect(fioArguments(fio('unix randread 64k d16 once'), 2, MIB)).not.toContain('--time_based');
  });

  test('to ask for a second first, unless something is to be done for the first time', () => {
    expect(fioArguments(fio('unix randread 64k d16 cold'), 2, MIB)).toContain('--ramp_time=1000ms');
    expect(fioArguments(fio('unix randread 64k d16 once'), 2, MIB).join(' ')).not.toContain('ramp_time');
    expect(fioArguments({ ...fio('unix randwrite 4k d32'), qcow2: 'new' }, 2, MIB).join(' ')).not.toContain(
      'ramp_time',
    );
  });

  test('a part of the image for each of several sequential connections, the whole for random ones', () => {
    expect(fioArguments(fio('tcp write 64k d1 c4'), 2, 8 * MIB)).toEqual(
      expect.arrayContaining([`--size=${2 * MIB}`, `--offset_increment=${2 * MIB}`]),
    );
    expect(fioArguments(fio('tcp randwrite 64k d1 c4'), 2, 8 * MIB).join(' ')).not.toContain('--size');
  });
});

describe('what fio says', () => {
  const side = (total_ios: number) => ({
    total_ios,
    iops: total_ios / 2,
    clat_ns: { percentile: { '99.000000': 5000 } },
  });
  const report = (job: object) =>
    `fio: a warning\n${JSON.stringify({ jobs: [{ error: 0, usr_cpu: 5, sys_cpu: 20, ...job }] })}`;

  test('is taken from the direction that was used', () => {
    const load = { rate: 50, requests: 100, p99Micros: 5, clientCores: 0.25 };
    expect(fioLoad(report({ read: side(100), write: side(0) }))).toEqual(load);
    expect(fioLoad(report({ read: side(0), write: side(100) }))).toEqual(load);
    expect(fioLoad(report({ read: side(100), write: side(0) }), 4).clientCores).toBe(1);
  });

  test('is no figure if it failed or got no answer', () => {
    expect(() => fioLoad(report({ error: 5, read: side(100), write: side(0) }))).toThrow('fio failed');
    expect(() => fioLoad(report({ read: side(0), write: side(0) }))).toThrow('no answer');
  });
});
