import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { long } from '../long.js';
import { assertQuietKernel, freshDir, ok, until } from './guest.js';
import { expectNothingLeft, isSocket, startServer, tsnbd } from './programs.js';
import { type Durability, durabilityOf, isWorkerTrace, TRACE_OPTIONS, WITHOUT_RING } from './server-trace.js';
import { dropStorage, ext4Folder } from './storage.js';

afterEach(async () => {
  await dropStorage();
  await expectNothingLeft();
  await assertQuietKernel();
});

const FLUSHES_MIN = 20;
const FUAS_MIN = 20;

/** Some that flush and some that write durably, side by side, so that requests of both kinds come in one batch. */
const JOBS = [
  'fio --filename=/dev/nbd0 --direct=1 --bs=4k --group_reporting --output=/dev/null --thread',
  '--name=flushes --rw=randwrite --size=8m --io_size=160k --numjobs=2 --fsync=4 --randseed=1',
  '--name=durable --rw=randwrite --offset=8m --size=8m --io_size=96k --numjobs=2 --sync=dsync --randseed=2',
  '--name=plain --rw=randwrite --offset=16m --size=8m --io_size=256k --ioengine=libaio --iodepth=16',
];

/** What a server's worker does for Linux and fio, as strace sees it. */
async function traced(cache: string, tracing = TRACE_OPTIONS): Promise<Durability> {
  const image = `${await ext4Folder('64M')}/disk.raw`;
  const socket = `${image}.socket`;
  const dir = freshDir('trace');
  await ok(`truncate -s 24M ${image}`);
  const command = `strace ${tracing} -o ${dir}/thread ${tsnbd} -k ${socket} -f raw --cache=${cache} ${image}`;
  const server = await startServer(command, isSocket(socket));
  await ok(`nbd-client -L -unix ${socket} /dev/nbd0`);
  await until('test -e /sys/block/nbd0/pid');
  await ok(JOBS.join(' '));
  await ok('nbd-client -L -d /dev/nbd0');
  expect((await server.result).status).toBe(0);
  const threads = readdirSync(dir).map((name) => readFileSync(join(dir, name), 'latin1'));
  const workers = threads.filter(isWorkerTrace);
  expect(workers).toHaveLength(1);
  return durabilityOf(workers[0] ?? '', cache === 'directsync');
}

const BESIDE = ['which syncs beside other requests', TRACE_OPTIONS] as const;
const WITHOUT = ['which has no io_uring', `${TRACE_OPTIONS} ${WITHOUT_RING}`] as const;

/** Past the page cache another way of writing is taken, for the same replies. */
test.each([
  ['writeback', ...BESIDE],
  ['writeback', ...WITHOUT],
  ['none', ...BESIDE],
  ['directsync', ...BESIDE],
  ...(long
    ? ([
        ['none', ...WITHOUT],
        ['directsync', ...WITHOUT],
      ] as const)
    : []),
] as const)(
  'with --cache=%s, by a server %s, a sync or a durable write comes before the reply to each FLUSH and each FUA',
  async (cache, _, tracing) => {
    const { flushes, begunFlushes, fuas, writes, early } = await traced(cache, tracing);
    expect(early).toEqual([]);
    expect(flushes).toBeGreaterThanOrEqual(FLUSHES_MIN);
    expect(fuas).toBeGreaterThanOrEqual(FUAS_MIN);
    expect(writes).toBeGreaterThan(0);
    expect(begunFlushes > 0).toBe(tracing === TRACE_OPTIONS);
  },
);

test('with --cache=unsafe none does: the trace would show it', async () => {
  const { flushes, fuas, early } = await traced('unsafe');
  expect(early).toHaveLength(flushes + fuas);
});
