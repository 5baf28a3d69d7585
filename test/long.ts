import { test } from 'vitest';

/** Whether this is `scripts/test --long`. */
export const long = process.env.TSNBD_TEST_LONG === '1';

/** A test for which only the long run has the time: what it looks at is near to what others look at, too. */
export const longTest: (name: string, body: () => Promise<void>) => void = long ? test : () => {};

/** Cases for which only the long run has the time. */
export function inLongRun<Case>(cases: readonly Case[]): readonly Case[] {
  return long ? cases : [];
}
