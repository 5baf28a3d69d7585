import { once } from 'node:events';
import { constants } from 'node:os';
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { newSharedFields } from '#tsnbd/image/shared-layout.js';

const module = import.meta.resolve('#tsnbd/image/stable-storage.js');
const workersCount = 4;
const flushesEach = 100;

// Fields of the tests' own: syncs that are running, the most that ran at once, syncs in all, acknowledged writes, those
// that were written when the newest sync began, and the sync that fails.
const program = `
  import { workerData, parentPort } from 'node:worker_threads';
  const { StableStorage } = await import(workerData.module);
  const { shared, own, flushes, failAt } = workerData;
  const [RUNNING, MOST, SYNCS, WRITES, STABLE] = [0, 1, 2, 3, 4];
  const storage = new StableStorage(shared, () => {
    const written = Atomics.load(own, WRITES);
    const running = Atomics.add(own, RUNNING, 1) + 1;
    if (running > Atomics.load(own, MOST)) Atomics.store(own, MOST, running);
    const number = Atomics.add(own, SYNCS, 1) + 1;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 0.5);
    Atomics.sub(own, RUNNING, 1);
    if (number === failAt) return 5;
    Atomics.store(own, STABLE, written);
    return 0;
  });
  const wrong = [];
  let failures = 0;
  for (let i = 0; i < flushes; i += 1) {
    const mine = Atomics.add(own, WRITES, 1) + 1;
    const errno = storage.flush();
    if (errno !== 0) failures += 1;
    else if (failures > 0) wrong.push('acknowledged after a failure');
    else if (Atomics.load(own, STABLE) < mine) wrong.push('acknowledged before it was stable');
  }
  parentPort.postMessage({ wrong, failures, failed: storage.failed });
`;

interface Result {
  readonly wrong: readonly string[];
  readonly failures: number;
  readonly failed: boolean;
}

async function race(failAt: number, startedAt = 0) {
  const shared = newSharedFields();
  shared.fill(startedAt, 2, 4); // SYNCS_STARTED and SYNCS_DONE
  const own = new Int32Array(new SharedArrayBuffer(5 * 4));
  const workerData = { module, shared, own, flushes: flushesEach, failAt };
  const workers = Array.from(
    { length: workersCount },
    () => new Worker(new URL(`data:text/javascript,${encodeURIComponent(program)}`), { workerData }),
  );
  const results = (await Promise.all(workers.map((worker) => once(worker, 'message')))).map(
    ([result]) => result as Result,
  );
  return { results, mostAtOnce: own[1] ?? 0, syncs: own[2] ?? 0 };
}

test('connections that flush at once sync one after the other, share syncs, and lose no write', async () => {
  const { results, mostAtOnce, syncs } = await race(-1);
  for (const result of results) expect(result).toEqual({ wrong: [], failures: 0, failed: false });
  expect(mostAtOnce).toBe(1);
  expect(syncs).toBeGreaterThanOrEqual(flushesEach);
  expect(syncs).toBeLessThan(workersCount * flushesEach); // how many are shared is the scheduler's
});

test('the count of syncs may wrap around', async () => {
  const { results, syncs } = await race(-1, 2 ** 31 - 20);
  for (const result of results) expect(result).toEqual({ wrong: [], failures: 0, failed: false });
  expect(syncs).toBeGreaterThanOrEqual(flushesEach);
});

test('once a sync has failed no connection gets a flush acknowledged, whoever was told', async () => {
  const { results, syncs } = await race(20);
  expect(constants.errno.EIO).toBe(5);
  expect(syncs).toBe(20);
  for (const { wrong, failures, failed } of results) {
    expect(wrong).toEqual([]);
    expect(failed).toBe(true);
    expect(failures).toBeGreaterThan(0);
  }
});
