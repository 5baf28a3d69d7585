import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { bootTsnbd, type Machine } from './machine.js';

// The guest of the other kernel tests has one processor, for which the kernel makes one queue, of one connection.

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
  machine = await bootTsnbd(folder, 'two-processors-init.sh', 768);
  const [, queues] = await machine.says(/queues (\d+)\r?\n/);
  expect(queues).toBe('2');
  // Each processor reads 4 MiB and writes 4 MiB.
  const [, ...bytes] = await machine.says(/received (\d+) (\d+) sent (\d+) (\d+)\r?\n/);
  for (const each of bytes) expect(Number(each)).toBeGreaterThan(4 << 20);
  const [, verdict] = await machine.says(/the disk is (.*?)\r?\n/);
  expect(verdict).toBe('right');
  expect(await machine.status).toBe(0);
});
