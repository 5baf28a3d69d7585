import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { boot, bringModules, bringPrograms, type Machine, makeDisk, makeRoot } from './machine.js';

// The guest of the other kernel tests has one processor, for which the kernel makes one queue, of one connection.

const ROOT = dirname(dirname(import.meta.dirname));
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
  const native = readdirSync(join(ROOT, 'node_modules/@yuuang'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.node'))
    .map((name) => join(ROOT, 'node_modules/@yuuang', name));
  bringPrograms(root, [process.execPath, '/usr/bin/ss', ...native]);
  for (const name of ['dist', 'node_modules/ffi-rs', 'node_modules/@yuuang']) {
    mkdirSync(join(root, 'tsnbd', name), { recursive: true });
    cpSync(join(ROOT, name), join(root, 'tsnbd', name), { recursive: true });
  }
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
