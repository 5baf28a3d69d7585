import { chmodSync, existsSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { runProgram } from '../kernel/run-program.js';
import { within } from '../kernel/within.js';
import { DaemonError } from './errors.js';
import { jsonLine } from './json-lines.js';
import { hearChannel } from './launch.js';
import { makeRunFolder, runFile } from './run-folder.js';

/** PID 1 takes the order at once, and does what it is about in its own time: on a busy machine at boot that is seconds. */
const ORDER_LIMIT_MS = 20_000;
const START_LIMIT_MS = 30_000;
/** A service that was told to give up, and does not tell when it has, is not waited for longer. */
const UNDO_LIMIT_MS = 15_000;
/** How long PID 1 waits for a process that was told to stop; nothing is killed then. */
const STOP_LIMIT_SECONDS = 60;

/** A service of its own for a process that must live: what it is called, and which units it is stopped after. */
export interface ServicePlan {
  readonly unit: string;
  readonly description: string;
  readonly before: readonly string[];
  /** Of the node that runs it. */
  readonly nodeOptions?: readonly string[];
}

/** Whether systemd is process 1 (sd_booted(3)). */
export function isUnderSystemd(): boolean {
  return existsSync('/run/systemd/system');
}

/**
 * Like `launch`, but the process is a service of systemd's and belongs to no command, no login and no mount unit. Nobody
 * waits for process 1, which may wait for us: the order is not followed up, and the channel is a socket, since no pipe
 * gets past process 1. At shutdown the service is stopped after the units of `before`; it is never killed by systemd.
 */
export async function launchService(
  entry: URL,
  task: unknown,
  onEvent: (event: unknown) => void,
  plan: ServicePlan,
  stop?: AbortSignal,
): Promise<void> {
  makeRunFolder();
  const path = runFile(`launch-${process.pid}`, '.sock');
  rmSync(path, { force: true });
  const { server, connected } = await listen(path);
  let channel: Socket | undefined;
  try {
    await order(plan, [process.execPath, ...(plan.nodeOptions ?? []), fileURLToPath(entry), path]);
    const first = await within(connected, START_LIMIT_MS);
    if (first === 'late')
      throw new DaemonError('time-limit', `${plan.unit} was not started in ${START_LIMIT_MS / 1000} s`);
    channel = first;
    channel.write(jsonLine(task));
    await new Promise<void>((resolve, reject) => {
      // It hears that, undoes itself, and then tells that it failed.
      const abandon = () => {
        first.end();
        setTimeout(() => first.destroy(), UNDO_LIMIT_MS).unref();
      };
      stop?.addEventListener('abort', abandon, { once: true });
      if (stop?.aborted) abandon();
      // All is undone before a failure is told.
      hearChannel(first, onEvent, resolve, reject);
      first.on('close', () =>
        reject(new DaemonError('died', `${plan.unit} ended early; see: journalctl -u ${plan.unit}`)),
      );
    });
  } finally {
    channel?.destroy();
    server.close();
    rmSync(path, { force: true });
  }
}

async function listen(path: string): Promise<{ readonly server: Server; readonly connected: Promise<Socket> }> {
  const server = createServer();
  server.maxConnections = 1;
  const connected = new Promise<Socket>((resolve) => server.once('connection', resolve));
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new DaemonError('system', `cannot listen on ${path}: ${cause.message}`, cause)),
    );
    server.listen(path, resolve);
  });
  server.on('error', () => {});
  chmodSync(path, 0o600);
  return { server, connected };
}

/** systemd.service(5): two dollar signs stand for one. */
function literal(word: string): string {
  return word.replaceAll('$', '$$$$');
}

async function order({ unit, description, before }: ServicePlan, command: readonly string[]): Promise<void> {
  const properties = [
    'DefaultDependencies=no',
    'Conflicts=shutdown.target',
    'Before=shutdown.target',
    // In a list of names a backslash, which stands for itself in the name, has another before it.
    ...before.map((other) => `Before=${other.replaceAll('\\', '\\\\')}`),
    // Mount units stay when another target is isolated, and so must what serves them.
    'IgnoreOnIsolate=yes',
    'KillMode=mixed',
    'SendSIGKILL=no',
    `TimeoutStopSec=${STOP_LIMIT_SECONDS}`,
  ];
  const words = [
    ...['--quiet', '--no-block', '--collect', '--no-ask-password', `--unit=${unit}`, `--description=${description}`],
    ...properties.map((property) => `--property=${property}`),
    ...[`--setenv=PATH=${process.env.PATH ?? ''}`, '--', ...command.map(literal)],
  ];
  const end = await runProgram('systemd-run', words, { limitMs: ORDER_LIMIT_MS });
  if (end.status === 0) return;
  const why = end.isLate ? `no answer in ${ORDER_LIMIT_MS / 1000} s` : end.stderr.trim().split('\n').join(' ');
  throw new DaemonError('system', `systemd does not start ${unit}: ${why}`);
}
