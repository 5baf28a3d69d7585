import { closeSync } from 'node:fs';
import { FIRST_GIVEN_FD } from '../daemon/launch.js';
import { duplicateFd } from '../kernel/fd-calls.js';

/** What this process was started with, under numbers that no process inherits from it. */
export function takeGiven(count: number): readonly number[] {
  return Array.from({ length: count }, (_, index) => {
    const fd = duplicateFd(FIRST_GIVEN_FD + index);
    closeSync(FIRST_GIVEN_FD + index);
    return fd;
  });
}
