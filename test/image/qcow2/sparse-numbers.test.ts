import fc from 'fast-check';
import { expect, it } from 'vitest';
import { SparseNumbers } from '#tsnbd/image/qcow2/sparse-numbers.js';

const LENGTH = 100_000;
const sparse = (length: number) => new SparseNumbers(length, (size) => new Uint32Array(size));

it('numbers are what was set, and none that was set is passed over', () => {
  const index = fc.oneof(fc.nat(LENGTH - 1), fc.constantFrom(0, 16_383, 16_384, LENGTH - 1));
  fc.assert(
    fc.property(fc.array(fc.tuple(index, fc.nat())), index, (changes, from) => {
      const numbers = sparse(LENGTH);
      const model = new Map<number, number>();
      for (const [at, value] of changes) {
        numbers.set(at, value);
        model.set(at, value);
      }
      for (const [at, value] of model) expect(numbers.get(at)).toBe(value);
      expect(numbers.get(from)).toBe(model.get(from) ?? 0);
      const after = [...model.keys()].filter((at) => at >= from);
      const next = numbers.next(from);
      expect(next).toBeGreaterThanOrEqual(from);
      expect(next).toBeLessThanOrEqual(Math.min(LENGTH, ...after));
    }),
  );
});

it('outside there are zeroes, and nothing is set', () => {
  const numbers = sparse(2 ** 31);
  numbers.set(0, 5);
  numbers.set(2 ** 31 - 1, 6);
  expect(numbers.get(2 ** 31 - 1)).toBe(6);
  for (const index of [-1, 2 ** 31, 2 ** 32, 2 ** 52]) {
    expect(numbers.get(index)).toBe(0);
    expect(() => numbers.set(index, 1)).toThrow('within its row');
  }
  expect(numbers.next(2 ** 20)).toBe(2 ** 31 - 16_384);
});
