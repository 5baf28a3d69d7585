import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { runTsnbd, type Served, serveUnix, succeed } from '../interop/served.js';

/** Debian's kernel, which scripts/setup --long unpacks; what it needs for this disk is built in. */
const KERNELS = '/usr/local/lib/tsnbd-bench/machine/usr/lib/modules';
const BOOT_LIMIT_MS = 240_000;
const DISK_BYTES = 64 << 20;
const FILES = 12;

let folder: string;
let server: Served | undefined;
let machine: ChildProcess | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-machine-'));
});
afterEach(async () => {
  machine?.kill('SIGKILL');
  server?.kill();
  await server?.exit;
  rmSync(folder, { recursive: true });
});

/** A file system with one program, /init. */
async function makeDisk(path: string): Promise<void> {
  const root = join(folder, 'root');
  for (const name of ['bin', 'data', 'dev', 'proc']) mkdirSync(join(root, name), { recursive: true });
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
  copyFileSync(join(import.meta.dirname, 'disk-init.sh'), join(root, 'init'));
  writeFileSync(path, '');
  truncateSync(path, DISK_BYTES);
  await succeed('mkfs.ext4', '-q', '-d', root, path);
}

/** Boots from an export, and waits for a line on the console; answers what it matched. */
async function boot(uri: string, awaited: RegExp): Promise<RegExpExecArray> {
  const [version = ''] = readdirSync(KERNELS);
  machine = spawn(
    'qemu-system-x86_64',
    [
      ...['-accel', 'tcg', '-m', '256', '-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
      ...['-kernel', join(KERNELS, version, 'vmlinuz')],
      // On a busy machine the virtual timer is late for the kernel's check of it.
      ...['-append', 'console=ttyS0 quiet panic=-1 no_timer_check root=/dev/nvme0n1 rw init=/init'],
      ...['-drive', `if=none,id=disk,format=raw,file=${uri}`, '-device', 'nvme,drive=disk,serial=1'],
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const limit = setTimeout(() => machine?.kill('SIGKILL'), BOOT_LIMIT_MS);
  let said = '';
  for await (const piece of machine.stdout ?? []) {
    said += piece;
    const match = awaited.exec(said);
    if (match === null) continue;
    clearTimeout(limit);
    return match;
  }
  throw new Error(`the machine ended without ${awaited}: ${said}`);
}

test('a virtual machine boots from our server, is killed while it writes, boots again and shuts down', async () => {
  const [raw, image] = [join(folder, 'disk.raw'), join(folder, 'disk.qcow2')];
  await makeDisk(raw);
  expect(await runTsnbd('create', '-f', 'qcow2', image, String(DISK_BYTES))).toMatchObject({ status: 0 });
  server = await serveUnix(join(folder, 'socket'), image, '-f', 'qcow2', '-t', '-e', '0');
  await succeed('nbdcopy', raw, server.uri);

  await boot(server.uri, new RegExp(`written ${FILES}\\r?\\n`));
  machine?.kill('SIGKILL');
  if (machine !== undefined && machine.exitCode === null && machine.signalCode === null) await once(machine, 'exit');

  const [, whole] = await boot(server.uri, /found (\d+) whole\r?\n/);
  expect(Number(whole)).toBeGreaterThanOrEqual(FILES);
  if (machine?.exitCode === null) await once(machine, 'exit');
  expect(machine?.exitCode).toBe(0);

  expect(await server.stop()).toBe(0);
  expect(await runTsnbd('check', image)).toMatchObject({ status: 0, stdout: expect.stringContaining('No errors') });
  await succeed('qemu-img', 'check', image);
});
