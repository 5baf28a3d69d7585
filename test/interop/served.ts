import { type ChildProcess, execFile, type SpawnOptions, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, openSync, readSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { connect } from '#tsnbd/transport/connect.js';
import { freePort } from './peers.js';

export const TSNBD = fileURLToPath(new URL('../../dist/tsnbd.js', import.meta.url));
const READY_LIMIT_MS = 60_000;
const PROGRAM_LIMIT_MS = 240_000;
const OWN_STDIO: SpawnOptions = { stdio: ['ignore', 'inherit', 'pipe'] };
/** Of a child of root; anybody else's is an ordinary user's as it is. */
export const NOBODY = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};

/** A `tsnbd` that serves images. */
export interface Served {
  readonly uri: string;
  readonly pid: number | undefined;
  /** All that it has said on stderr. */
  said(): string;
  /** SIGTERM, and its exit status. */
  stop(): Promise<number | null>;
  /** SIGKILL. */
  kill(): void;
  readonly exit: Promise<number | null>;
}

/** Serves `image` with the built program over TCP, or over the unix socket `path`, and waits until it listens. */
export async function serveTcp(image: string, ...options: string[]): Promise<Served> {
  const port = await freePort();
  const address = { kind: 'tcp', host: '127.0.0.1', port } as const;
  const child = start(['--bind', '127.0.0.1', '--port', String(port), ...formatAnd(options), image]);
  return ready(child, address, `nbd://127.0.0.1:${port}/`);
}

export async function serveUnix(path: string, image: string, ...options: string[]): Promise<Served> {
  const child = start(['--socket', path, ...formatAnd(options), image]);
  return ready(child, { kind: 'unix', path }, `nbd+unix:///?socket=${path}`);
}

const formatAnd = (options: readonly string[]) => (options.includes('-f') ? options : ['-f', 'raw', ...options]);

/** Like serveUnix, with variables of the environment besides. */
export async function serveUnixIn(
  environment: Readonly<Record<string, string>>,
  path: string,
  image: string,
  ...options: string[]
): Promise<Served> {
  const child = start(['--socket', path, ...options, image], { ...OWN_STDIO, env: { ...process.env, ...environment } });
  return ready(child, { kind: 'unix', path }, `nbd+unix:///?socket=${path}`);
}

/** Like serveUnix, with every option given, as an ordinary user, to whom limits apply. */
export async function serveAsNobody(path: string, ...args: string[]): Promise<Served> {
  const child = start(['--socket', path, ...args], { ...OWN_STDIO, ...NOBODY });
  return ready(child, { kind: 'unix', path }, `nbd+unix:///?socket=${path}`);
}

/** Like serveUnix, with every option given, under strace with `tracing`, which watches from the side: the process is tsnbd's own. */
export function serveTraced(path: string, tracing: readonly string[], ...args: string[]): Promise<Served> {
  const address = { kind: 'unix', path } as const;
  return ready(startTraced(tracing, ['--socket', path, ...args]), address, `nbd+unix:///?socket=${path}`);
}

/** The same over TCP. */
export async function serveTracedTcp(tracing: readonly string[], ...args: string[]): Promise<Served> {
  const port = await freePort();
  const address = { kind: 'tcp', host: '127.0.0.1', port } as const;
  return ready(startTraced(tracing, ['--port', String(port), ...args]), address, `nbd://127.0.0.1:${port}/`);
}

/** `tsnbd serve` with `args`, over the unix socket `path`. */
export async function serveExports(path: string, ...args: string[]): Promise<Served> {
  const child = start(['serve', '--socket', path, '-f', 'raw', ...args]);
  return ready(child, { kind: 'unix', path }, `nbd+unix:///?socket=${path}`);
}

/** `tsnbd serve` with every option given, over the unix socket `path`, under strace as by serveTraced. */
export function serveExportsTraced(path: string, tracing: readonly string[], ...args: string[]): Promise<Served> {
  const address = { kind: 'unix', path } as const;
  return ready(startTraced(tracing, ['serve', '--socket', path, ...args]), address, `nbd+unix:///?socket=${path}`);
}

/** Has systemd-socket-activate listen on the unix socket `path`, which starts `tsnbd` with `args` at the first client. */
export async function serveActivated(path: string, ...args: string[]): Promise<Served> {
  const child = spawn('systemd-socket-activate', ['--listen', path, process.execPath, TSNBD, ...args], OWN_STDIO);
  return ready(child, { kind: 'unix', path }, `nbd+unix:///?socket=${path}`);
}

/** A `tsnbd` that ends by itself, as when the command line makes no sense. */
export function runTsnbd(...args: string[]): Promise<Ran> {
  return run(process.execPath, TSNBD, ...args);
}

/** How a program of another project ended, and what it said. */
export interface Ran {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export function run(program: string, ...args: string[]): Promise<Ran> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { timeout: PROGRAM_LIMIT_MS, maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      const status = error === null ? 0 : error.code;
      if (typeof status === 'number') resolve({ status, stdout, stderr });
      else reject(new Error(`${program} did not end by itself, or is missing: ${error?.message}`, { cause: error }));
    });
  });
}

/** Like `run`, for what must succeed: anything else is an error with the program's own words. */
export async function succeed(program: string, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await run(program, ...args);
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${status}: ${stdout}${stderr}`);
  return stdout;
}

/** Through one small buffer: on a virtual machine the pages of a large one take longer than the sum. */
export function sha256(path: string): string {
  const hash = createHash('sha256');
  const fd = openSync(path, 'r');
  const piece = Buffer.alloc(1_048_576);
  for (let length = readSync(fd, piece); length > 0; length = readSync(fd, piece))
    hash.update(piece.subarray(0, length));
  closeSync(fd);
  return hash.digest('hex');
}

function start(args: readonly string[], options = OWN_STDIO): ChildProcess {
  return spawn(process.execPath, [TSNBD, ...args], options);
}

function startTraced(tracing: readonly string[], args: readonly string[]): ChildProcess {
  const traced = [process.execPath, TSNBD, ...args];
  return spawn('strace', ['-D', '-f', '-qq', '-o', '/dev/null', ...tracing, ...traced], OWN_STDIO);
}

async function ready(child: ChildProcess, address: Parameters<typeof connect>[0], uri: string): Promise<Served> {
  let said = '';
  child.stderr?.on('data', (text) => {
    said += text;
  });
  const exit = once(child, 'close').then(([status]) => status as number | null);
  const deadline = Date.now() + READY_LIMIT_MS;
  for (;;) {
    try {
      (await connect(address, AbortSignal.timeout(READY_LIMIT_MS))).destroy();
      break;
    } catch (error) {
      if (child.exitCode !== null || Date.now() > deadline)
        throw new Error(`tsnbd does not serve: ${said}`, { cause: error });
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  const stop = () => {
    child.kill('SIGTERM');
    return exit;
  };
  return { uri, pid: child.pid, said: () => said, stop, kill: () => void child.kill('SIGKILL'), exit };
}
