import { describe, expect, test } from 'vitest';
import { fio } from '../../bench/cases.js';
import { reportText } from '../../bench/report.js';
import { resultOf } from '../../bench/results.js';
import { inTime } from '../../bench/rounds.js';

const peers = [
  { name: 'tsnbd', group: 'tsnbd' },
  { name: 'nbdkit', group: 'nbdkit' },
  { name: 'qemu-nbd', group: 'qemu-nbd' },
  { name: 'qemu-nbd io_uring', group: 'qemu-nbd' },
];
const rates: Record<string, number> = { tsnbd: 300, nbdkit: 200, 'qemu-nbd': 100, 'qemu-nbd io_uring': 150 };
const targets = { speed: { 'qemu-nbd': 2.5, 'qemu-nbd io_uring': 2.5 } };
const results = [
  resultOf(fio('unix randread 4k d1', targets), peers, ({ name }) => [{ rate: rates[name] ?? 0, requests: 1000 }]),
];
const report = (checks: boolean, of = results) =>
  reportText({ versions: {}, options: { rounds: 1, seconds: 1, sizeBytes: 1, checks }, results: of, measured: [] });

describe('what a run says at its end', () => {
  test('has a line for each mode that has a target, and judges both', () => {
    const lines = report(true).split('\n');
    expect(lines[1]?.replace(/ +/g, ' ')).toBe('unix randread 4k d1 300 1.50 io_uring 2.00 MISSES 2.50');
    expect(lines[2]?.replace(/ +/g, ' ')).toBe(' 3.00 meets 2.50');
    expect(report(true)).toContain(
      '1 of 2 targets met; missed:\n  unix randread 4k d1 / qemu-nbd io_uring: 2.00, not 2.5',
    );
  });

  test('says of what was missed how far the bound got, in its best way', () => {
    const ways = ['bound', 'bound awake'].map((name) => ({ name, group: 'bound' }));
    const withBound = { ...rates, bound: 330, 'bound awake': 345 } as Record<string, number>;
    const bounded = resultOf(fio('unix randread 4k d1', targets), [...peers, ...ways], ({ name }) => [
      { rate: withBound[name] ?? 0, requests: 1000 },
    ]);
    expect(report(true, [bounded])).toContain(
      'unix randread 4k d1 / qemu-nbd io_uring: 2.00, not 2.5 (the bound: 2.30)',
    );
  });

  test('says that nothing was compared where that was left out', () => {
    expect(report(true)).not.toContain('compared');
    expect(report(false)).toMatch(/nothing that was read or written was compared, .* none of these figures counts$/);
  });
});

test('what is measured besides is begun only while there is time', async () => {
  const one = (what: string) => ({ what, unit: 'ms', value: { median: 1, lowest: 1, highest: 1 } });
  const begun: string[] = [];
  const step = (what: string) => ({
    what,
    act: async () => {
      begun.push(what);
      await new Promise((resolve) => setTimeout(resolve, 50));
      return [one(what)];
    },
  });
  const steps = [step('first'), step('second')];
  expect(await inTime(steps, Number.POSITIVE_INFINITY)).toEqual([one('first'), one('second')]);
  expect(await inTime(steps, performance.now() + 10)).toEqual([one('first')]);
  expect(await inTime(steps, performance.now() - 1)).toEqual([]);
  expect(begun).toEqual(['first', 'second', 'first']);
});
