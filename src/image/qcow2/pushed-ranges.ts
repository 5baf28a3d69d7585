import { RANGES_MAX } from './memory.js';

/**
 * Puts a range of clusters behind those of a list whose length is in `numbers`; neighbours become one, but for the first `sealed`,
 * which stay as they are. Where it is full, nothing.
 */
export function pushRange(
  ranges: Float64Array,
  numbers: Float64Array,
  counter: number,
  first: number,
  count: number,
  sealed = 0,
): void {
  const length = numbers[counter] ?? 0;
  const last = 2 * (length - 1);
  if (length > sealed && (ranges[last] ?? 0) + (ranges[last + 1] ?? 0) === first) {
    ranges[last + 1] = (ranges[last + 1] ?? 0) + count;
    return;
  }
  if (length >= RANGES_MAX) return;
  ranges[2 * length] = first;
  ranges[2 * length + 1] = count;
  numbers[counter] = length + 1;
}
