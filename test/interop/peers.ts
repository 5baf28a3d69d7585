import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { connect } from '#tsnbd/transport/connect.js';
import { formatNbdUri, type NbdTarget, parseNbdUri } from '#tsnbd/transport/uri.js';

const READY_LIMIT_MS = 60_000;

/** A server of another project. */
export interface Peer {
  readonly uri: string;
  /** Whether it still runs. */
  runs(): boolean;
  stop(): Promise<void>;
}

/** nbdkit with `args` on a unix socket in `folder`. */
export function nbdkit(folder: string, ...args: string[]): Promise<Peer> {
  const socket = join(folder, 'nbdkit.sock');
  const target = { address: { kind: 'unix', path: socket }, exportName: '' } as const;
  return started(spawn('nbdkit', ['-f', '-U', socket, ...args], OWN_STDIO), target);
}

/** qemu-nbd with `args` on a unix socket in `folder`. */
export function qemuNbd(folder: string, exportName: string, ...args: string[]): Promise<Peer> {
  const socket = join(folder, 'qemu.sock');
  const target = { address: { kind: 'unix', path: socket }, exportName } as const;
  return started(spawn('qemu-nbd', ['-k', socket, '-x', exportName, ...args], OWN_STDIO), target);
}

/** nbd-server with one export on TCP. */
export async function nbdServer(folder: string, exportName: string, image: string): Promise<Peer> {
  const port = await freePort();
  const config = join(folder, 'nbd-server.conf');
  const generic = `[generic]\nallowlist = true\nlistenaddr = 127.0.0.1\nport = ${port}\n`;
  writeFileSync(config, `${generic}[${exportName}]\nexportname = ${image}\nreadonly = true\n`);
  const target = { address: { kind: 'tcp', host: '127.0.0.1', port }, exportName } as const;
  // It goes into the background: with -d, which keeps it here, it serves one client only.
  const pidFile = join(folder, 'nbd-server.pid');
  const { uri } = await started(spawn('nbd-server', ['-C', config, '-p', pidFile], OWN_STDIO), target, true);
  const pid = Number(readFileSync(pidFile, 'utf8'));
  const runs = () => existsSync(`/proc/${pid}`);
  const stop = async () => {
    process.kill(pid, 'SIGTERM');
    while (runs()) await new Promise((resolve) => setTimeout(resolve, 20));
  };
  return { uri, runs, stop };
}

const OWN_STDIO = { stdio: 'ignore' } as const;

async function started(child: ChildProcess, target: NbdTarget, leaves = false): Promise<Peer> {
  const exit = once(child, 'exit');
  const deadline = Date.now() + READY_LIMIT_MS;
  const runs = () => child.exitCode === null && child.signalCode === null;
  for (;;) {
    try {
      (await connect(target.address, AbortSignal.timeout(READY_LIMIT_MS))).destroy();
      break;
    } catch (cause) {
      if ((!runs() && !leaves) || Date.now() > deadline)
        throw new Error(`${child.spawnfile} does not serve`, { cause });
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  const stop = async () => {
    child.kill('SIGTERM');
    await exit;
  };
  return { uri: formatNbdUri(target), runs, stop };
}

/** The same server, and nothing of what export it is. */
export function serverOf(uri: string): string {
  return formatNbdUri({ ...parseNbdUri(uri), exportName: '' });
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}
