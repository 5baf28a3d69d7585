import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { bundle } from '../../scripts/bundle.js';
import { bootGuest, type Guest } from '../../scripts/kernel-bench-guest.js';
import { chosenKernel } from '../../scripts/kernel-bench-kernels.js';
import { KILL_AT_CALL, POPULATED_MEMORY, ROOT, TEST_PROGRAMS } from './test-programs.js';

/** What guest.ts asks for: one request a connection, JSON both ways, each ended by closing that direction. */
export interface GuestRequest {
  readonly command: string;
  readonly limitMs: number;
  readonly cwd: string;
}

export type GuestReply =
  | { readonly kind: 'ended'; readonly status: number; readonly stdout: string; readonly stderr: string }
  | { readonly kind: 'died'; readonly message: string };

/** A guest as a test file reaches it. */
export interface KernelBench {
  readonly socketPath: string;
  readonly workDir: string;
}

declare module 'vitest' {
  interface ProvidedContext {
    readonly kernelBenches: readonly KernelBench[];
  }
}

/** What the tests run in the guest, and the threads and the process that it starts by their own files. */
const PROGRAMS = [
  'test/kernel/device-program.js',
  'test/kernel/memory-server.js',
  'test/kernel/peers/hostile-server.js',
  'test/kernel/peers/faulty-server.js',
  'test/fault/drivers/attach-in-process.js',
  'build/server/worker.js',
  'build/kernel/do-it-thread.js',
  'build/attach/disconnect-process.js',
];

/**
 * What command lines of the tests use most, of busybox, which is linked statically: each start takes half the time. Only what
 * tests use as any such program has it; ours start none of these.
 */
const QUICK = 'cat cut grep ls mkdir mktemp mv rmdir sed seq sleep tr wc'.split(' ');
const QUICK_FOLDER = '/run/quick';

const guests: Guest[] = [];
const servers: Server[] = [];

/**
 * Boots the guests of a run of the project `kernel`, one for each worker, so that none disturbs another's devices. No guest, no
 * tests: what it throws fails the run.
 */
export async function setup(project: TestProject): Promise<void> {
  // Loaded module by module they take a second longer to start.
  await bundle(
    PROGRAMS.map((path) => join(ROOT, path)),
    [],
    TEST_PROGRAMS,
  );
  compileLibrary('test/fault/drivers/kill-at-call.c', KILL_AT_CALL);
  compileLibrary('test/kernel/populated-memory.c', POPULATED_MEMORY);
  const kernel = chosenKernel(project.config.env.TSNBD_BENCH_KERNEL);
  const booted = await Promise.allSettled(
    Array.from({ length: project.config.maxWorkers }, () => bootGuest({ kernel, preload: POPULATED_MEMORY })),
  );
  for (const boot of booted) if (boot.status === 'fulfilled') guests.push(boot.value);
  const failed = booted.find((boot) => boot.status === 'rejected');
  if (failed !== undefined) {
    await teardown();
    throw failed.reason;
  }
  const link = `mkdir ${QUICK_FOLDER}; for name in ${QUICK.join(' ')}; do busybox ln -s $(command -v busybox) ${QUICK_FOLDER}/$name; done`;
  for (const guest of guests) await guest.run(link);
  const version = await guests[0]?.run('uname -r');
  console.log(`The tests of the project "${project.name}" run on Linux ${version?.stdout.trim()}.`);
  const benches: KernelBench[] = [];
  for (const guest of guests) {
    const socketPath = join(guest.folder, 'commands');
    const server = createServer({ allowHalfOpen: true }, (socket) => void serve(socket, guest));
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(socketPath, resolve));
    benches.push({ socketPath, workDir: guest.workDir });
  }
  project.provide('kernelBenches', benches);
}

function compileLibrary(source: string, library: string): void {
  const options = ['-shared', '-fPIC', '-O1', '-Wall', '-Wextra', '-Werror'];
  execFileSync('cc', [...options, '-o', library, join(ROOT, source), '-ldl']);
}

export async function teardown(): Promise<void> {
  for (const server of servers) server.close();
  await Promise.all(guests.map((guest) => guest.powerOff()));
}

async function serve(socket: Socket, guest: Guest): Promise<void> {
  // A test that was ended does not read its answer.
  socket.on('error', () => {});
  try {
    const { command, ...options } = JSON.parse(await received(socket)) as GuestRequest;
    reply(socket, { kind: 'ended', ...(await guest.run(`PATH=${QUICK_FOLDER}:$PATH\n${command}`, options)) });
  } catch (error) {
    reply(socket, { kind: 'died', message: error instanceof Error ? error.message : String(error) });
  }
}

/** All that the peer sends; unlike `text(socket)` it leaves the other direction open. */
async function received(socket: Socket): Promise<string> {
  const pieces: Buffer[] = [];
  socket.on('data', (piece) => pieces.push(piece));
  await once(socket, 'end');
  return Buffer.concat(pieces).toString('utf8');
}

function reply(socket: Socket, answer: GuestReply): void {
  socket.end(JSON.stringify(answer));
}
