import { fstatSync } from 'node:fs';

const CALLS = 3;

/** How long the machine takes for a call of the system that waits for nothing, in milliseconds: the shortest of a few. */
export function callMs(fd: number): number {
  let shortestMs = Number.POSITIVE_INFINITY;
  for (let call = 0; call < CALLS; call += 1) {
    const begin = performance.now();
    fstatSync(fd);
    shortestMs = Math.min(shortestMs, performance.now() - begin);
  }
  return shortestMs;
}
