import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import type { BootOptions } from '../../scripts/kernel-bench-guest.js';
import { longTest } from '../long.js';
import {
  assertQuietKernel,
  background,
  freshDir,
  kernelLog,
  markKernelLog,
  ok,
  run,
  until,
  withOwnGuest,
} from './guest.js';

const checkout = fileURLToPath(new URL('../..', import.meta.url));

describe('the guest', () => {
  test('gives status, standard output and standard error apart', async () => {
    expect(await run('echo out; echo err >&2; exit 7')).toEqual({ status: 7, stdout: 'out\n', stderr: 'err\n' });
  });

  test('has nbd with partitions, loopback, and the usual mounts', async () => {
    expect(Number(await ok('cat /sys/module/nbd/parameters/max_part'))).toBeGreaterThanOrEqual(16);
    await ok('test -b /dev/nbd0 && test -b /dev/nbd7 && test ! -e /sys/block/nbd0/pid');
    await ok('ip -6 address show dev lo | grep -q "::1/128" && ip -4 address show dev lo up | grep -q 127.0.0.1');
    for (const folder of ['/run', '/tmp', '/dev/shm', '/dev/pts', '/sys', '/proc']) await ok(`mountpoint -q ${folder}`);
    await ok('test -d /run/lock && : </dev/ptmx');
  });

  test("has the host's Node and this checkout at the same paths", async () => {
    expect(await ok('node -p "process.execPath + process.version"')).toBe(process.execPath + process.version);
    const file = join(checkout, 'package.json');
    expect(await ok(`cat '${file}'`)).toBe(readFileSync(file, 'utf8').trimEnd());
  });

  test('writes to the host nowhere but in the work folder', async () => {
    const dir = freshDir('reach');
    const paths = ['/usr/reach-of-the-bench', '/tmp/reach-of-the-bench', join(checkout, 'reach-of-the-bench')];
    for (const path of paths) {
      await ok(`echo guest >'${path}' && test -s '${path}'`);
      expect(existsSync(path)).toBe(false);
    }
    await ok(`echo guest >${dir}/file`);
    expect(readFileSync(join(dir, 'file'), 'utf8')).toBe('guest\n');
  });

  test('sees what the host writes into the work folder, as often as it changes', async () => {
    const file = join(freshDir('seen'), 'file');
    expect((await run(`cat ${file}`)).status).toBe(1);
    for (const content of ['one', 'two, longer']) {
      writeFileSync(file, content);
      expect(await ok(`cat ${file}`)).toBe(content);
    }
  });

  test('runs commands at the same time, and one of them in the background', async () => {
    const server = await background('echo ready; exec sleep 100');
    await until(`test -d /proc/${server.pid}`);
    expect(server.output().stdout).toBe('ready\n');
    expect(await Promise.all([ok('sleep 0.3; echo a'), ok('echo b')])).toEqual(['a', 'b']);
    expect((await server.stop()).status).toBe(128 + 15);
    expect((await run(`test -d /proc/${server.pid}`)).status).toBe(1);
  });

  test('ends a command at its time limit, SIGTERM ignored or not', async () => {
    const polite = await run('echo begun; exec sleep 100', { limitMs: 1_000 });
    expect(polite).toEqual({ status: 124, stdout: 'begun\n', stderr: 'bench: time limit of 1 s reached\n' });
    expect((await run('trap "" TERM; sleep 100', { limitMs: 1_000 })).status).toBe(124);
    expect((await run('pgrep sleep')).status).toBe(1);
  });

  test('leaves no zombies of orphans', async () => {
    await ok('(setsid sleep 0.1 &) ; sleep 1.5; ! grep -l "^State:.*zombie" /proc/[0-9]*/status');
  });

  test('kills at a chosen system call under strace', async () => {
    const { status } = await run(
      'strace -f -o /dev/null -e inject=unlinkat:signal=SIGKILL:when=2 /bin/rm -f /tmp/a /tmp/b',
    );
    expect(status).toBe(128 + 9);
  });

  test("gives the kernel's messages, and tells a complaint from an ordinary one", async () => {
    const mark = await markKernelLog();
    await ok('echo ordinary >/dev/kmsg');
    await assertQuietKernel(mark);
    expect(await kernelLog(mark)).toContain('ordinary');
    await ok('echo "WARNING: CPU: 0 made up" >/dev/kmsg');
    await expect(assertQuietKernel(mark)).rejects.toThrow('made up');
    await ok('dmesg --clear');
  });
});

describe('a guest that dies', () => {
  longTest('fails its commands at once, with the end of its console', async () => {
    let folder = '';
    await withOwnGuest({}, async (guest) => {
      const waiting = guest.run('sleep 100', { limitMs: 100_000 });
      await Promise.all([
        expect(waiting).rejects.toThrow('sysrq triggered crash'),
        expect(guest.run('echo c >/proc/sysrq-trigger; sleep 100')).rejects.toThrow('sysrq triggered crash'),
      ]);
      await expect(guest.run('true')).rejects.toThrow('is gone');
      folder = guest.folder;
    });
    expect(folder !== '' && !existsSync(folder)).toBe(true);
  });

  test('is a failure when it does not boot in time, or without its nbd module', async () => {
    const boot = (options: BootOptions) => withOwnGuest(options, (guest) => guest.run('true'));
    await Promise.all([
      expect(boot({ limitMs: 50 })).rejects.toThrow('did not boot within 0.05 s'),
      expect(boot({ nbd: 'max_part=many' })).rejects.toThrow('no nbd module'),
    ]);
  });
});

describe('scripts/kernel-bench', () => {
  test('passes on output, status and arguments', async () => {
    const ran = await kernelBench(['sh', '-c', 'echo "$1"; echo err >&2; exit 9', 'sh', "it's  one"]);
    expect(ran).toEqual({ status: 9, stdout: "it's  one\n", stderr: 'err\n' });
  });

  test('says 124 after its time limit and 125 for a guest that dies', async () => {
    const [late, dead] = await Promise.all([
      kernelBench(['-t', '2', 'echo begun; sleep 100']),
      kernelBench(['-n', 'none', 'test ! -e /sys/module/nbd || exit 1; echo c >/proc/sysrq-trigger; sleep 100']),
    ]);
    expect(late).toEqual({ status: 124, stdout: 'begun\n', stderr: 'bench: time limit of 2 s reached\n' });
    expect(dead.status).toBe(125);
    expect(dead.stderr).toContain('sysrq triggered crash');
  });

  test('leaves nothing behind after ^C, SIGTERM and kill -9', async () => {
    const signals = ['SIGINT', 'SIGTERM', 'SIGKILL'] as const;
    const ended = await Promise.all(signals.map((signal) => kernelBench(['echo "$BENCH_WORK"; sleep 100'], signal)));
    const folders = ended.map(({ stdout }) => join(stdout.trim(), '..'));
    for (const folder of folders) expect(folder).toMatch(/kernel-bench-/);
    const left = () => folders.filter((folder) => existsSync(folder) || guestProcesses(folder).length > 0);
    await expect.poll(left, { timeout: 60_000 }).toEqual([]);
  });
});

/** Runs it, and sends it a signal once it has said something. */
function kernelBench(words: readonly string[], signal?: NodeJS.Signals) {
  return new Promise<{ status: number | null; stdout: string; stderr: string }>((resolve, reject) => {
    const child = spawn(join(checkout, 'scripts/kernel-bench'), words, { stdio: ['ignore', 'pipe', 'pipe'] });
    const said = { stdout: '', stderr: '' };
    child.stdout.on('data', (bytes) => {
      said.stdout += bytes;
      if (signal) child.kill(signal);
    });
    child.stderr.on('data', (bytes) => {
      said.stderr += bytes;
    });
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, ...said }));
  });
}

/** The host's processes of the guest that lives in this folder; zombies that wait for their parent are none. */
function guestProcesses(folder: string): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(`uml_dir=${folder}/`);
    } catch {
      return false;
    }
  });
}
