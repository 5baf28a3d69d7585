import { DATA, INVALID, UNALLOCATED, ZEROES, ZEROES_ALLOCATED } from './cluster-kind.js';

/** Subclusters of one cluster that are of one kind. */
export interface UnitRun {
  kind: number;
  /** How many, at least 1. */
  units: number;
}

/**
 * Fills `run` with what begins at subcluster `first` of a cluster, by the bitmap of its extended entry (qcow2.rst,
 * 'Extended L2 Entries'): `allocated` is its lower half, `zero` the upper, bit x of each for subcluster x.
 */
export function subclusterRun(allocated: number, zero: number, first: number, hasHost: boolean, run: UnitRun): void {
  const kind = kindOf(allocated, zero, first, hasHost);
  let end = first + 1;
  while (end < 32 && kindOf(allocated, zero, end, hasHost) === kind) end += 1;
  run.kind = kind;
  run.units = end - first;
}

function kindOf(allocated: number, zero: number, unit: number, hasHost: boolean): number {
  const isAllocated = ((allocated >>> unit) & 1) !== 0;
  const isZero = ((zero >>> unit) & 1) !== 0;
  if (isAllocated) return isZero || !hasHost ? INVALID : DATA;
  if (!isZero) return UNALLOCATED;
  return hasHost ? ZEROES_ALLOCATED : ZEROES;
}
