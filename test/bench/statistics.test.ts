import { describe, expect, test } from 'vitest';
import { type FioCase, fio } from '../../bench/cases.js';
import { resultOf } from '../../bench/results.js';
import { median, meets, ratio, spread } from '../../bench/statistics.js';

describe('what several rounds say together', () => {
  test('the median of an odd number is the middle one, of an even number between the middle two', () => {
    expect(median([9, 1, 5])).toBe(5);
    expect(median([10, 1, 4, 2])).toBe(3);
    expect(median([7])).toBe(7);
    expect(() => median([])).toThrow(RangeError);
  });

  test('numbers are sorted as numbers, and the caller keeps its order', () => {
    const values = [100, 9, 20];
    expect(spread(values)).toEqual({ median: 20, lowest: 9, highest: 100 });
    expect(values).toEqual([100, 9, 20]);
  });

  test('a ratio compares what was measured in the same round', () => {
    // Both halve in the second round: nothing has changed between them.
    expect(ratio([200, 100, 220], [100, 50, 100])).toEqual({ median: 2, lowest: 2, highest: 2.2 });
    expect(() => ratio([1, 2], [1])).toThrow(RangeError);
  });

  test('a speed meets its target from it on, a cost up to it', () => {
    expect([1.59, 1.6, 1.61].map((value) => meets(value, 1.6, 'speed'))).toEqual([false, true, true]);
    expect([0.49, 0.5, 0.51].map((value) => meets(value, 0.5, 'cpu'))).toEqual([true, true, false]);
  });
});

describe('the result of a case', () => {
  const peers = [
    { name: 'tsnbd', group: 'tsnbd' },
    { name: 'nbdkit', group: 'nbdkit' },
    { name: 'qemu-nbd', group: 'qemu-nbd' },
    { name: 'qemu-nbd io_uring', group: 'qemu-nbd' },
  ];
  const rates: Record<string, number[]> = {
    tsnbd: [300, 330, 270],
    nbdkit: [200, 200, 200],
    'qemu-nbd': [100, 100, 1000],
    'qemu-nbd io_uring': [150, 150, 150],
  };
  const result = (one: FioCase) =>
    resultOf(one, peers, ({ name }) =>
      (rates[name] ?? []).map((rate) => ({ rate, requests: 1000, cpuSeconds: 0.02, p99Micros: 80 })),
    );

  test('compares with the better of a program’s modes, by its median', () => {
    const { speed } = result(fio('unix randread 4k d16'));
    expect(speed.map(({ peer, ratio }) => [peer, ratio.median])).toEqual([
      ['nbdkit', 1.5],
      ['qemu-nbd io_uring', 2],
    ]);
  });

  test('is judged only where there is a target', () => {
    expect(result(fio('unix randread 4k d16')).speed.map(({ met }) => met)).toEqual([undefined, undefined]);
    const judged = result(fio('unix randread 4k d16', { speed: { nbdkit: 1.6, 'qemu-nbd': 2 }, cpu: { nbdkit: 0.5 } }));
    expect(judged.speed.map(({ target, met }) => [target, met])).toEqual([
      [1.6, false],
      [2, true],
    ]);
    expect(judged.cpu.map(({ target, met }) => [target, met])).toEqual([
      [0.5, false],
      [undefined, undefined],
    ]);
  });

  test('compares with each mode of a program where each has a target, the better one first', () => {
    const { speed } = result(fio('unix randread 4k d16', { speed: { 'qemu-nbd': 2.5, 'qemu-nbd io_uring': 2.5 } }));
    expect(speed.map(({ peer, ratio, met }) => [peer, ratio.median, met])).toEqual([
      ['nbdkit', 1.5, undefined],
      ['qemu-nbd io_uring', 2, false],
      ['qemu-nbd', 3, true],
    ]);
  });

  test('has the cost of a request in microseconds', () => {
    expect(result(fio('unix read 4k d1')).figures[0]).toMatchObject({ peer: 'tsnbd', cpuMicros: 20, p99Micros: 80 });
  });

  test('says nothing of a cost that was not measured', () => {
    const without = resultOf(fio('kernel randread 4k d1'), peers, ({ name }) =>
      (rates[name] ?? []).map((rate) => ({ rate, requests: 1000 })),
    );
    expect(without.cpu).toEqual([]);
    expect(without.figures[0]).not.toHaveProperty('cpuMicros');
  });
});
