import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { NBD_CMD_READ, NBD_CMD_WRITE } from '#tsnbd/protocol/constants.js';
import { connect } from '#tsnbd/transport/connect.js';
import type { RawClient } from '../server/raw-client.js';
import { attachBy } from '../server/served-image.js';
import { type Served, serveUnix } from './served.js';

/** The largest READ: its reply lies in a buffer as large until the connection is idle. */
const READ_BYTES = 33_554_432;
const WATCHED_MS = 1_500; // whoever wakes each second is seen
/** V8 collects garbage once more when a program has become quiet. */
const WATCHES_MAX = 10;

const attach = async (path: string): Promise<RawClient> =>
  attachBy(await connect({ kind: 'unix', path }, AbortSignal.timeout(5_000)));

function residentBytes({ pid }: Served): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1_024;
}

/** How often all threads have left a processor, for they were to wait or others were to have it: one that sleeps on leaves none. */
function turns({ pid }: Served): number {
  const statuses = readdirSync(`/proc/${pid}/task`).map((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/status`, 'latin1'),
  );
  const counts = statuses.flatMap((status) => [...status.matchAll(/voluntary_ctxt_switches:\s+(\d+)/g)]);
  return counts.reduce((sum, [, count]) => sum + Number(count), 0);
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test('a connection that is silent for a while takes no processor, gives its buffers back, and is served when it speaks', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tsnbd-idle-'));
  const image = join(folder, 'disk.raw');
  writeFileSync(image, '');
  truncateSync(image, READ_BYTES);
  const served = await serveUnix(join(folder, 'sock'), image, '-t');
  try {
    const client = await attach(join(folder, 'sock'));
    const data = Buffer.alloc(4_096, 5);
    // Many that wait for each answer: so the worker may be awake when the client falls silent.
    for (let round = 0; round < 500; round += 1) await client.ask({ type: NBD_CMD_WRITE, data });
    await client.ask({ type: NBD_CMD_READ, lengthBytes: READ_BYTES });
    const busyBytes = residentBytes(served);
    await expect.poll(() => busyBytes - residentBytes(served)).toBeGreaterThan(READ_BYTES * 0.9);
    let isStill = false;
    for (let watch = 0; !isStill && watch < WATCHES_MAX; watch += 1) {
      const before = turns(served);
      await sleep(WATCHED_MS);
      isStill = turns(served) === before;
    }
    expect(isStill).toBe(true);
    const { error, data: read } = await client.ask({ type: NBD_CMD_READ, lengthBytes: READ_BYTES });
    expect(error).toBe(0);
    expect(read.equals(Buffer.concat([data, Buffer.alloc(READ_BYTES - data.length)]))).toBe(true);
    client.close();
    expect(await served.stop()).toBe(0);
  } finally {
    served.kill();
    rmSync(folder, { recursive: true });
  }
});
