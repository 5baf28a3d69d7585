import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { bootTsnbd, type Machine } from './machine.js';

let folder: string;
let machine: Machine | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-machine-'));
});
afterEach(async () => {
  await machine?.kill();
  rmSync(folder, { recursive: true });
});

test('a device whose process was killed is detached although its server has stopped with the socket full', async () => {
  machine = await bootTsnbd(folder, 'stuck-server-init.sh', 1_024);
  const [, first] = await machine.says(/(detached with .*?)\r?\n/);
  expect(first).toBe('detached with 0, size 0, full connections 0');
  const [, other] = await machine.says(/the other with (.*?)\r?\n/);
  expect(other).toBe('0');
  expect(await machine.status).toBe(0);
});
