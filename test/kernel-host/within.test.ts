import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { within } from '#tsnbd/kernel/within.js';

test('what comes in time is had, a failure too', async () => {
  expect(await within(Promise.resolve(7), 60_000)).toBe(7);
  await expect(within(Promise.reject(new Error('no')), 60_000)).rejects.toThrow('no');
});

test('what is late is left alone, and may fail unheard', async () => {
  const { promise, reject } = withReject();
  expect(await within(promise, 5)).toBe('late');
  reject(new Error('unheard'));
  await sleep(5); // an unhandled rejection would end the run
});

function withReject(): { readonly promise: Promise<never>; readonly reject: (error: Error) => void } {
  let reject: (error: Error) => void = () => {};
  const promise = new Promise<never>((_, refuse) => {
    reject = refuse;
  });
  return { promise, reject };
}
