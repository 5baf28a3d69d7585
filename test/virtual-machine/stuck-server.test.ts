import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { boot, bringModules, bringTsnbd, type Machine, makeDisk, makeRoot } from './machine.js';

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

test('a device whose process was killed is detached although its server has stopped with the socket full', async () => {
  const [root, disk] = [join(folder, 'root'), join(folder, 'disk.raw')];
  makeRoot(root, 'stuck-server-init.sh');
  bringTsnbd(root);
  bringModules(root, ['drivers/block/nbd', 'net/ipv4/inet_diag', 'net/ipv4/tcp_diag']);
  await makeDisk(disk, DISK_BYTES, root);

  machine = boot(disk, { processors: 2, memoryMiB: 1_024 });
  const [, first] = await machine.says(/(detached with .*?)\r?\n/);
  expect(first).toBe('detached with 0, size 0, connections 0');
  const [, other] = await machine.says(/the other with (.*?)\r?\n/);
  expect(other).toBe('0');
  expect(await machine.status).toBe(0);
});
