import { setTimeout as sleep } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { loadLibc } from '#tsnbd/kernel/libc.js';
import { SpareWorkers, startWorker } from '#tsnbd/server/spare-workers.js';

/** Longer than a server waits before it starts any. */
const FILLED_MS = 1_500;

loadLibc();

/** The number of a thread that is started now: later ones have higher ones. */
async function numberNow(): Promise<number> {
  const worker = startWorker();
  const { threadId } = worker;
  await worker.terminate();
  return threadId;
}

async function endAll(workers: readonly Worker[]): Promise<void> {
  await Promise.all(workers.map((worker) => worker.terminate()));
}

test('who comes to a server that has waited gets a thread that is there already, as many as may still come', async () => {
  const spares = new SpareWorkers(() => 2);
  spares.fillSoon();
  await sleep(FILLED_MS);
  const now = await numberNow();
  const taken = [spares.take(), spares.take(), spares.take()];
  expect(taken.map(({ threadId }) => threadId < now)).toEqual([true, true, false]);
  await sleep(FILLED_MS);
  const later = await numberNow();
  taken.push(spares.take());
  expect(taken[3]?.threadId).toBeLessThan(later);
  expect(taken[3]?.threadId).toBeGreaterThan(now);
  spares.close();
  await endAll(taken);
});

test('who comes to a server that has just started gets a new thread', async () => {
  const spares = new SpareWorkers(() => 4);
  spares.fillSoon();
  const now = await numberNow();
  const taken = spares.take();
  expect(taken.threadId).toBeGreaterThan(now);
  spares.close();
  await endAll([taken]);
});

test('none is started once the server is closed', async () => {
  const spares = new SpareWorkers(() => 1);
  spares.fillSoon();
  spares.close();
  await sleep(FILLED_MS);
  const now = await numberNow();
  const taken = spares.take();
  expect(taken.threadId).toBeGreaterThan(now);
  await endAll([taken]);
});

test('one whose client has gone is there for the next, if anybody may still come', async () => {
  let room = 1;
  const spares = new SpareWorkers(() => room);
  const [first, second, third] = [startWorker(), startWorker(), startWorker()];
  const ids = [first, second, third].map(({ threadId }) => threadId);
  spares.give(first);
  spares.give(second); // one is enough
  await expect.poll(() => first.threadId).toBe(-1);
  const taken = spares.take();
  expect(taken.threadId).toBe(ids[1]);
  await taken.terminate();
  spares.give(taken); // it has ended
  room = 0;
  spares.give(third);
  await expect.poll(() => third.threadId).toBe(-1);
  const fresh = spares.take();
  expect(fresh.threadId).toBeGreaterThan(ids[2] ?? 0);
  spares.close();
  spares.give(fresh);
  await expect.poll(() => fresh.threadId).toBe(-1);
});

test('one that has served is taken rather than one that never has, and stays in its place', async () => {
  const spares = new SpareWorkers(() => 1);
  spares.fillSoon();
  await sleep(FILLED_MS);
  const served = startWorker();
  const { threadId } = served;
  spares.give(served); // in place of the other
  const taken = [spares.take(), spares.take()];
  expect(taken[0]?.threadId).toBe(threadId);
  expect(taken[1]?.threadId).toBeGreaterThan(threadId);
  spares.close();
  await endAll(taken);
});

test('of those that have served, the last is the first to serve again', async () => {
  const spares = new SpareWorkers(() => 4);
  const given = [startWorker(), startWorker()];
  const ids = given.map(({ threadId }) => threadId);
  for (const worker of given) spares.give(worker);
  const taken = [spares.take(), spares.take()];
  expect(taken.map(({ threadId }) => threadId)).toEqual(ids.toReversed());
  spares.close();
  await endAll(taken);
});

test('none is started while clients come again and again', async () => {
  const spares = new SpareWorkers(() => 2);
  const worker = startWorker();
  spares.give(worker);
  for (let client = 0; client < 6; client += 1) {
    await sleep(FILLED_MS / 5);
    expect(spares.take()).toBe(worker);
    spares.give(worker);
  }
  const taken = spares.take();
  const now = await numberNow();
  const second = spares.take();
  expect(second.threadId).toBeGreaterThan(now);
  spares.close();
  await endAll([taken, second]);
});

test('one that broke before it was to end breaks nothing else', async () => {
  const spares = new SpareWorkers(() => 1);
  const [first, second] = [startWorker(), startWorker()];
  spares.give(first);
  first.postMessage(null); // no task
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, FILLED_MS); // by then it has said so, and nobody has heard it
  spares.give(second); // in its place
  await expect.poll(() => first.threadId).toBe(-1);
  const taken = spares.take();
  expect(taken).toBe(second);
  spares.close();
  await endAll([taken]);
});
