import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { connect } from '#tsnbd/transport/connect.js';
import type { RawClient } from '../server/raw-client.js';
import { attachBy, readsWell, SIZE_BYTES } from '../server/served-image.js';
import { NOBODY, type Served, serveAsNobody, TSNBD } from './served.js';

/** A server starts threads ahead of their clients, up to four, when it has waited for a second. */
const CLIENTS = 6;
const FILLED_MS = 1_500;
const ENOUGH = 1_000;
const isReadable = spawnSync('test', ['-r', TSNBD], NOBODY).status === 0;

const attach = async (path: string): Promise<RawClient> =>
  attachBy(await connect({ kind: 'unix', path }, AbortSignal.timeout(5_000)));

/** For an ordinary user no thread is started where there are `count` already. */
function limitThreads({ pid }: Served, count: number): void {
  expect(spawnSync('prlimit', ['--pid', String(pid), `--nproc=${count}:`], NOBODY).status).toBe(0);
}

test.runIf(isReadable)(
  'a server that gets no thread goes on, and a client that would need one is told, and closed',
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'tsnbd-threads-'));
    chmodSync(folder, 0o777);
    const path = join(folder, 'sock');
    const clients: RawClient[] = [];
    let served: Served | undefined;
    try {
      writeFileSync(join(folder, 'disk.raw'), Buffer.alloc(SIZE_BYTES, 1));
      served = await serveAsNobody(path, '-t', '-e', String(CLIENTS), '-r', '-f', 'raw', join(folder, 'disk.raw'));
      const first = await attach(path);
      clients.push(first);
      expect(await readsWell(first)).toBe(true);
      limitThreads(served, 1);
      for (let client = 1; client < CLIENTS; client += 1) {
        const next = await attach(path);
        clients.push(next);
        if (!(await readsWell(next).catch(() => false))) break;
      }
      const notice = /^tsnbd: client \d+ from .* was not served: no thread can be started: .*EAGAIN.*\n/;
      await expect.poll(() => served?.said()).toMatch(notice);
      await new Promise((resolve) => setTimeout(resolve, FILLED_MS));
      expect(await readsWell(first)).toBe(true);

      // Its place is free again.
      limitThreads(served, ENOUGH);
      clients.pop();
      while (clients.length < CLIENTS) clients.push(await attach(path));
      for (const client of clients) expect(await readsWell(client)).toBe(true);
      expect(await served.stop()).toBe(0);
    } finally {
      for (const client of clients) client.close();
      served?.kill();
      rmSync(folder, { recursive: true });
    }
  },
);
