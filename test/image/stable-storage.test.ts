import { once } from 'node:events';
import { constants } from 'node:os';
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import type { BegunSync } from '#tsnbd/image/begun-sync.js';
import { newSharedFields } from '#tsnbd/image/shared-layout.js';
import { StableStorage } from '#tsnbd/image/stable-storage.js';

const module = import.meta.resolve('#tsnbd/image/stable-storage.js');
const workersCount = 4;
const flushesEach = 100;

// Fields of the tests' own: syncs that are running, the most that ran at once, syncs in all, acknowledged writes, those
// that were written when the newest sync began, and the workers that are there: they begin together.
const program = `
  import { workerData, parentPort } from 'node:worker_threads';
  const { StableStorage } = await import(workerData.module);
  const { shared, own, workers, flushes, failAt } = workerData;
  const [RUNNING, MOST, SYNCS, WRITES, STABLE, THERE] = [0, 1, 2, 3, 4, 5];
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
  Atomics.add(own, THERE, 1);
  Atomics.notify(own, THERE);
  for (let there = 0; there < workers; there = Atomics.load(own, THERE)) Atomics.wait(own, THERE, there);
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
  const own = new Int32Array(new SharedArrayBuffer(6 * 4));
  const workerData = { module, shared, own, workers: workersCount, flushes: flushesEach, failAt };
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

/** Two workers' views of one image, whose syncs that are begun end with `errnos`, one after the other. */
function twoWorkers(...errnos: number[]) {
  const shared = newSharedFields();
  const log: string[] = [];
  const open = (name: string): StableStorage => {
    const begun: BegunSync = {
      begin: () => log.push(`${name} begins`) > 0,
      finish: () => errnos.shift() ?? 0,
      close: () => log.push(`${name} closes`),
      readableFd: 77,
      isDone: true,
    };
    const sync = () => {
      log.push(`${name} syncs`);
      return 0;
    };
    return new StableStorage(shared, sync, () => begun);
  };
  return { one: open('one'), other: open('other'), log };
}

test('a flush that is begun is a sync of the worker alone, once it has flushed with the open file of all', () => {
  const { one, other, log } = twoWorkers();
  expect(one.begin()).toBe(false);
  expect(one.flush()).toBe(0);
  expect(one.begin()).toBe(true);
  expect(one.begunFd).toBe(77);
  expect(other.begin()).toBe(false);
  // It waits for nobody's begun sync, and that one began before: so it makes one of its own.
  expect(other.flush()).toBe(0);
  expect(one.finish()).toBe(0);
  one.close();
  expect(log).toEqual(['one syncs', 'one begins', 'other syncs', 'one closes']);
});

test('a begun flush that failed is the end for every connection, and one of which nobody knows is made anew', () => {
  const { one, other, log } = twoWorkers(-1, constants.errno.ENOSPC);
  for (const storage of [one, other]) expect([storage.begin(), storage.flush()]).toEqual([false, 0]);
  expect([one.begin(), one.finish()]).toEqual([true, 0]);
  expect(log.slice(-2)).toEqual(['one begins', 'one syncs']);
  expect([one.begin(), other.begin()]).toEqual([true, true]);
  expect(one.finish()).toBe(constants.errno.ENOSPC);
  expect(other.finish()).toBe(constants.errno.EIO);
  expect([one.begin(), other.begin(), other.flush()]).toEqual([false, false, constants.errno.EIO]);
});
