import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { newSharedFields } from '#tsnbd/image/shared-layout.js';

const module = import.meta.resolve('#tsnbd/image/block-lock.js');
const workersCount = 4;
const turnsEach = 2000;

// Fields of the test's own: who shares the lock now, who has it alone, the most that shared it, and what went wrong.
const program = `
  import { workerData, parentPort } from 'node:worker_threads';
  const { BlockLock } = await import(workerData.module);
  const { shared, own, turns, number } = workerData;
  const [SHARING, ALONE, MOST, WRONG] = [0, 1, 2, 3];
  const lock = new BlockLock(shared);
  const hold = () => {
    const end = performance.now() + 0.01;
    while (performance.now() < end);
  };
  for (let i = 0; i < turns; i += 1) {
    if ((i + number) % 3 === 0) {
      lock.takeAlone();
      if (Atomics.add(own, ALONE, 1) !== 0 || Atomics.load(own, SHARING) !== 0) Atomics.add(own, WRONG, 1);
      hold();
      Atomics.sub(own, ALONE, 1);
      lock.leave();
    } else {
      lock.share();
      const sharing = Atomics.add(own, SHARING, 1) + 1;
      if (Atomics.load(own, ALONE) !== 0) Atomics.add(own, WRONG, 1);
      if (sharing > Atomics.load(own, MOST)) Atomics.store(own, MOST, sharing);
      hold();
      Atomics.sub(own, SHARING, 1);
      lock.unshare();
    }
  }
  parentPort.postMessage('done');
`;

test('who has the lock alone has it alone, others share it, and nobody waits for ever', async () => {
  const own = new Int32Array(new SharedArrayBuffer(4 * 4));
  const shared = newSharedFields();
  shared.fill(2 ** 31 - 100, 6, 7); // BLOCK_TURNS wraps around
  const workers = Array.from({ length: workersCount }, (_, number) => {
    const workerData = { module, shared, own, turns: turnsEach, number };
    return new Worker(new URL(`data:text/javascript,${encodeURIComponent(program)}`), { workerData });
  });
  await Promise.all(workers.map((worker) => once(worker, 'message')));
  expect([...own.subarray(0, 2)]).toEqual([0, 0]);
  expect(own[2]).toBeGreaterThan(1);
  expect(own[3]).toBe(0);
  expect([...shared.subarray(4, 6)]).toEqual([0, 0]);
});
