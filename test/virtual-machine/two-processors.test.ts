import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { boot, bringModules, bringTsnbd, type Machine, makeDisk, makeRoot } from './machine.js';

// The guest of the other kernel tests has one processor, for which the kernel makes one queue, of one connection.

const DISK_BYTES = 400 << 20;

let folder: string;
let machine: Machine | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-machine-'));
});
afterEach(async () => {
  await machine?.kill();
  rmSync(folder, { recursive: true });
});

test('two connections of a device each have a queue, which different processors use', async () => {
  const [root, disk] = [join(folder, 'root'), join(folder, 'disk.raw')];
  makeRoot(root, 'two-processors-init.sh');
  bringTsnbd(root);
  bringModules(root, ['drivers/block/nbd', 'net/ipv4/inet_diag', 'net/ipv4/tcp_diag']);
  await makeDisk(disk, DISK_BYTES, root);

  machine = boot(disk, { processors: 2, memoryMiB: 768 });
  const [, queues] = await machine.says(/queues (\d+)\r?\n/);
  expect(queues).toBe('2');
  // Each processor reads 4 MiB and writes 4 MiB.
  const [, ...bytes] = await machine.says(/received (\d+) (\d+) sent (\d+) (\d+)\r?\n/);
  for (const each of bytes) expect(Number(each)).toBeGreaterThan(4 << 20);
  const [, verdict] = await machine.says(/the disk is (.*?)\r?\n/);
  expect(verdict).toBe('right');
  expect(await machine.status).toBe(0);
});
