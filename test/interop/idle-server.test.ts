import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
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
const TICKS_A_SECOND = 100; // of Linux, to whoever asks it (USER_HZ)
const IDLE_MS = 1_000;
const WATCHED_MS = 2_000;

const attach = async (path: string): Promise<RawClient> =>
  attachBy(await connect({ kind: 'unix', path }, AbortSignal.timeout(5_000)));

function residentBytes({ pid }: Served): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1_024;
}

/** What all threads have had of the processors, in ticks. */
function usedTicks({ pid }: Served): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
  return Number(fields[11]) + Number(fields[12]);
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
    await sleep(IDLE_MS);
    const before = usedTicks(served);
    await sleep(WATCHED_MS);
    expect(usedTicks(served) - before).toBeLessThan((WATCHED_MS / 1_000) * TICKS_A_SECOND * 0.1);
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
