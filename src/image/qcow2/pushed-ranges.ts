import { RANGES_MAX } from './memory.js';

/** Puts a range of clusters behind those of a list whose length is in `numbers`; neighbours become one. Where it is full, nothing. */
export function pushRange(
  ranges: Float64Array,
  numbers: Float64Array,
  counter: number,
  first: number,
  count: number,
): void {
  const length = numbers[counter] ?? 0;
  const last = 2 * (length - 1);
  if (length > 0 && (ranges[last] ?? 0) + (ranges[last + 1] ?? 0) === first) {
    ranges[last + 1] = (ranges[last + 1] ?? 0) + count;
    return;
  }
  if (length >= RANGES_MAX) return;
  ranges[2 * length] = first;
  ranges[2 * length + 1] = count;
  numbers[counter] = length + 1;
}
