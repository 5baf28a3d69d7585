import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { RangeLock } from '#tsnbd/image/range-lock.js';
import { newSharedFields, RANGES_MAX, RANGES_TURNS, rangeTable } from '#tsnbd/image/shared-layout.js';

const module = import.meta.resolve('#tsnbd/image/range-lock.js');

/** A thread that runs `code` with a `lock` of its own, `number` and `own`, fields of the test's own. */
function start(code: string, shared: Int32Array, own: Int32Array, number = 0): Promise<unknown> {
  const program = `
    import { workerData, parentPort } from 'node:worker_threads';
    const { RangeLock } = await import(workerData.module);
    const { own, number } = workerData;
    const lock = new RangeLock(workerData.shared);
    ${code}
    parentPort.postMessage('done');`;
  const workerData = { module, shared, own, number };
  return once(new Worker(new URL(`data:text/javascript,${encodeURIComponent(program)}`), { workerData }), 'message');
}

const fieldsOfOwn = (count: number) => new Int32Array(new SharedArrayBuffer(4 * count));

describe('ranges', () => {
  it('that one has alone are had alone, others are shared, and nobody waits for ever', async () => {
    const [blocks, turns, threads] = [8, 1000, 4];
    // Of each block: how many share it, and 1000 for one who has it alone; behind them what went wrong, what was shared, and
    // how many threads are there: they begin together.
    const own = fieldsOfOwn(blocks + 3);
    const shared = newSharedFields();
    shared[RANGES_TURNS] = 2 ** 31 - 100; // it wraps around
    const code = `
      Atomics.add(own, ${blocks + 2}, 1);
      Atomics.notify(own, ${blocks + 2});
      for (let there = 0; there < ${threads}; there = Atomics.load(own, ${blocks + 2})) {
        Atomics.wait(own, ${blocks + 2}, there);
      }
      let random = number + 1;
      for (let i = 0; i < ${turns}; i += 1) {
        random = (Math.imul(random, 1103515245) + 12345) >>> 0;
        const alone = (random >>> 28) % 2 === 0;
        const first = (random >>> 16) % ${blocks};
        const count = alone ? 1 : 1 + (random >>> 20) % (${blocks} - first);
        const weight = alone ? 1000 : 1;
        if (alone) lock.takeAlone(first * 512, 512);
        else lock.share(first * 512, count * 512);
        for (let block = first; block < first + count; block += 1) {
          const before = Atomics.add(own, block, weight);
          if (before >= 1000 || (alone && before > 0)) Atomics.add(own, ${blocks}, 1);
          if (before > 0) Atomics.add(own, ${blocks + 1}, 1);
        }
        const end = performance.now() + 0.02;
        while (performance.now() < end);
        for (let block = first; block < first + count; block += 1) Atomics.sub(own, block, weight);
        lock.release();
      }`;
    await Promise.all(Array.from({ length: threads }, (_, number) => start(code, shared, own, number)));
    expect([...own.subarray(0, blocks + 1)]).toEqual(new Array(blocks + 1).fill(0));
    expect(own[blocks + 1]).toBeGreaterThan(0);
    expect([...rangeTable(shared)].filter((_, i) => i % 3 === 0)).toEqual(new Array(RANGES_MAX).fill(0));
  });

  it('that do not overlap are not waited for, up to 2^53 bytes', () => {
    const shared = newSharedFields();
    const locks = [0, 1, 2, 3].map(() => new RangeLock(shared));
    const end = Number.MAX_SAFE_INTEGER - 511;
    locks[0]?.takeAlone(512, 512);
    locks[1]?.share(0, 512);
    locks[2]?.share(1024, 2 ** 52);
    locks[3]?.takeAlone(end - 512, 512);
    for (const lock of locks) lock.release();
  });

  it.each([
    ['alone, what one has alone', 'takeAlone', 'lock.takeAlone(0, 512)'],
    ['alone, what another shares', 'share', 'lock.takeAlone(511, 1)'],
    ['to share, what one has alone', 'takeAlone', 'lock.share(0, 1)'],
  ] as const)('is waited for: %s', async (_, first, second) => {
    const shared = newSharedFields();
    const own = fieldsOfOwn(1);
    const mine = new RangeLock(shared);
    mine[first](0, 512);
    const other = start(`${second}; own[0] = 1; lock.release();`, shared, own);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(Atomics.load(own, 0)).toBe(0);
    mine.release();
    await other;
    expect(own[0]).toBe(1);
  });

  it('are so many as the table has; the next waits', async () => {
    const shared = newSharedFields();
    const own = fieldsOfOwn(1);
    const locks = Array.from({ length: RANGES_MAX }, () => new RangeLock(shared));
    for (const lock of locks) lock.share(0, 512);
    const other = start('lock.share(4096, 512); own[0] = 1; lock.release();', shared, own);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(Atomics.load(own, 0)).toBe(0);
    expect(locks[7]?.isAwaited).toBe(true);
    locks[7]?.release();
    await other;
    expect(locks[7]?.isAwaited).toBe(false);
  });

  it('are one a worker', () => {
    const lock = new RangeLock(newSharedFields());
    lock.share(0, 512);
    expect(() => lock.share(512, 512)).toThrow('one range at a time');
  });
});
