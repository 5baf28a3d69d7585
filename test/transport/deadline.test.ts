import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { deadlineAfter } from '#tsnbd/transport/deadline.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const aborted = (signal: AbortSignal) =>
  new Promise((resolve) => signal.addEventListener('abort', () => resolve(signal.reason)));

test('a deadline comes, however often garbage is collected before', async () => {
  const deadline = deadlineAfter(100, new AbortController().signal);
  const collecting = setInterval(collectGarbage, 10);
  expect(await aborted(deadline)).toMatchObject({ name: 'TimeoutError' });
  clearInterval(collecting);
});

test('a deadline comes at once when we are told to stop', async () => {
  const stop = new AbortController();
  const deadline = deadlineAfter(60_000, stop.signal);
  setTimeout(() => stop.abort('stop'), 10);
  expect(await aborted(deadline)).toBe('stop');
  expect(deadlineAfter(60_000, stop.signal).aborted).toBe(true);
});

test('a deadline of 0 never comes by itself, but when we are told to stop', async () => {
  const stop = new AbortController();
  const deadline = deadlineAfter(0, stop.signal);
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(deadline.aborted).toBe(false);
  stop.abort('stop');
  expect(deadline.reason).toBe('stop');
});
