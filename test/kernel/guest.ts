import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { inject } from 'vitest';
import { type BootOptions, bootGuest, type CommandResult, type Guest } from '../../scripts/kernel-bench-guest.js';
import type { GuestReply, GuestRequest, KernelBench } from './bench-setup.js';

/** The guest of the worker that runs this file: the workers are numbered from 1. */
const bench = benchOf(Number(process.env.VITEST_POOL_ID));

/** The folder that host and guest share, at the same path on both. Slower than the guest's /tmp, and hostfs has no holes. */
export const workDir = bench.workDir;

export interface RunOptions {
  /** Then the command gets SIGTERM, 2 s later SIGKILL, and its status is 124. */
  readonly limitMs?: number;
  readonly cwd?: string;
}

/** Runs a command line of sh in the guest. Throws only if the guest is dead, with the end of its console. */
export async function run(command: string, options: RunOptions = {}): Promise<CommandResult> {
  const { limitMs = 180_000, cwd = workDir } = options;
  const socket = createConnection({ path: bench.socketPath, allowHalfOpen: true });
  await once(socket, 'connect');
  socket.end(JSON.stringify({ command, limitMs, cwd } satisfies GuestRequest));
  const reply = JSON.parse(await text(socket)) as GuestReply;
  if (reply.kind === 'died') throw new Error(reply.message);
  const { status, stdout, stderr } = reply;
  return { status, stdout, stderr };
}

/** Runs a command that must succeed, and gives its standard output without the last newline. */
export async function ok(command: string, options: RunOptions = {}): Promise<string> {
  const { status, stdout, stderr } = await run(command, options);
  if (status !== 0) throw new Error(`status ${status} of: ${command}\n--- stdout\n${stdout}\n--- stderr\n${stderr}`);
  return stdout.replace(/\n$/, '');
}

/** Waits until a condition (a command line of sh) holds; throws what it said last if it never does. */
export async function until(condition: string, limitMs = 10_000): Promise<void> {
  const tries = Math.ceil(limitMs / 100);
  const loop = `for try in $(seq ${tries}); do last=$( ( ${condition}\n) 2>&1 ) && exit 0; sleep 0.1; done; echo "$last"; exit 1`;
  // The tries are what ends it: a slow machine gets more time.
  await ok(loop, { cwd: '/', limitMs: limitMs * 5 + 5_000 });
}

export interface Background {
  /** Of the shell, and of its process group; with `exec PROGRAM` as the command, of that program. */
  readonly pid: number;
  readonly result: Promise<CommandResult>;
  /** What it has written up to now. */
  output(): { readonly stdout: string; readonly stderr: string };
  /** Sends a signal to the whole process group and waits for the end. */
  stop(signal?: 'TERM' | 'KILL' | 'INT' | 'HUP'): Promise<CommandResult>;
}

/** Starts a command that runs beside the others, a server for instance. */
export async function background(command: string, options: RunOptions = {}): Promise<Background> {
  const note = join(freshDir('background'), 'note');
  const first = `echo $$ "$0" >${note}.new && mv ${note}.new ${note}`;
  let ended: CommandResult | undefined;
  const result = run(`${first}\n${command}`, { limitMs: 600_000, ...options }).then((end) => {
    ended = end;
    return end;
  });
  // A dead guest is told by `result`, to whoever waits for it.
  result.catch(() => {});
  while (!existsSync(note)) {
    await Promise.race([sleep(20), result]);
    if (ended && !existsSync(note)) throw new Error(`could not be started: ${command}\n${ended.stderr}`);
  }
  const [pid = '', script = ''] = readFileSync(note, 'utf8').trim().split(' ');
  const written = (stream: 'stdout' | 'stderr') => ended?.[stream] ?? readFileSync(join(script, '..', stream), 'utf8');
  return {
    pid: Number(pid),
    result,
    output: () => ({ stdout: written('stdout'), stderr: written('stderr') }),
    stop: async (signal = 'TERM') => {
      await run(`kill -s ${signal} -- -${pid}`);
      return result;
    },
  };
}

/** A new folder in the work folder: for files that host and guest exchange. */
export function freshDir(name: string): string {
  mkdirSync(workDir, { recursive: true });
  return mkdtempSync(join(workDir, `${name}-`));
}

/** A new folder in the guest's memory (tmpfs): fast and with holes, for images; not seen by the host. */
export function memoryDir(name: string): Promise<string> {
  return ok(`mktemp -d /tmp/${name}-XXXXXX`, { cwd: '/' });
}

/** The kernel's messages: all of them, or those behind a mark. */
export async function kernelLog(mark?: string): Promise<string> {
  const log = await ok('dmesg');
  const start = mark === undefined ? -1 : log.lastIndexOf(mark);
  return start < 0 ? log : log.slice(log.indexOf('\n', start) + 1);
}

/** Writes a line into the kernel's messages, to look only at what comes behind it. */
export async function markKernelLog(): Promise<string> {
  const mark = `kernel-bench mark ${process.hrtime.bigint()}`;
  await ok(`echo '${mark}' >/dev/kmsg`);
  return mark;
}

const complaints = /\b(BUG|Oops|WARNING|INFO: task|Call Trace|Kernel panic|general protection fault)\b.*/;

/** Throws if the kernel complained of itself (behind the mark): an oops, a warning, a hung task. */
export async function assertQuietKernel(mark?: string): Promise<void> {
  const log = await kernelLog(mark);
  if (complaints.test(log)) throw new Error(`the kernel complained:\n${log}`);
}

/** For what must not happen to the shared guest (a panic, another nbd module): a guest of the test's own, booted in 3 to 10 s. */
export async function withOwnGuest<T>(options: BootOptions, use: (guest: Guest) => Promise<T>): Promise<T> {
  const guest = await bootGuest(options);
  try {
    return await use(guest);
  } finally {
    await guest.powerOff();
  }
}

function benchOf(worker: number): KernelBench {
  const found = inject('kernelBenches')[worker - 1];
  if (found === undefined) throw new Error(`there is no guest for worker ${worker}: vitest.config.ts allows too many`);
  return found;
}
