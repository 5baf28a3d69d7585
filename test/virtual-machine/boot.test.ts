import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { runTsnbd, type Served, serveTcp, succeed } from '../interop/served.js';
import { boot, type Machine, makeDisk, makeRoot } from './machine.js';

const DISK_BYTES = 64 << 20;
const FILES = 12;

let folder: string;
let server: Served | undefined;
let machine: Machine | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-machine-'));
});
afterEach(async () => {
  await machine?.kill();
  server?.kill();
  await server?.exit;
  rmSync(folder, { recursive: true });
});

test('a virtual machine boots from our server, is killed while it writes, boots again and shuts down', async () => {
  const [raw, image] = [join(folder, 'disk.raw'), join(folder, 'disk.qcow2')];
  makeRoot(join(folder, 'root'), 'disk-init.sh');
  await makeDisk(raw, DISK_BYTES, join(folder, 'root'));
  expect(await runTsnbd('create', '-f', 'qcow2', image, String(DISK_BYTES))).toMatchObject({ status: 0 });
  server = await serveTcp(image, '-f', 'qcow2', '-t', '-e', '0');
  expect(server.uri).toMatch(/^nbd:\/\/127\.0\.0\.1:/);
  await succeed('nbdcopy', raw, server.uri);

  machine = boot(server.uri);
  await machine.says(new RegExp(`written ${FILES}\\r?\\n`));
  await machine.kill();

  machine = boot(server.uri);
  const [, whole] = await machine.says(/found (\d+) whole\r?\n/);
  expect(Number(whole)).toBeGreaterThanOrEqual(FILES);
  expect(await machine.status).toBe(0);

  expect(await server.stop()).toBe(0);
  expect(await runTsnbd('check', image)).toMatchObject({ status: 0, stdout: expect.stringContaining('No errors') });
  await succeed('qemu-img', 'check', image);
});
