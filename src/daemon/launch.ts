import { type ChildProcess, spawn } from 'node:child_process';
import type { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { DaemonError } from './errors.js';
import { JsonLines, jsonLine } from './json-lines.js';

/** The descriptor by which a launched process hears its task and tells how it goes. */
export const CHANNEL_FD = 3;

/** A process that failed and does not end (it ends itself before that: exit.ts) is not waited for longer. */
const END_LIMIT_MS = 15_000;

/** The task is sent first; then the child speaks, and its last word is 'ready' or 'failed'. */
export type ChannelMessage =
  | { readonly kind: 'event'; readonly event: unknown }
  | { readonly kind: 'ready' }
  | { readonly kind: 'failed'; readonly code: string; readonly message: string; readonly stack?: string };

/** What the child said when it failed, under the code it had there. */
export class LaunchedError extends Error {
  override readonly name = 'LaunchedError';
  readonly code: string;

  constructor(code: string, message: string, stack?: string) {
    super(message);
    this.code = code;
    if (stack !== undefined) this.stack = stack;
  }
}

export interface LaunchOptions {
  /** A child that is not ready by then is killed: for what can hang in the kernel. */
  readonly limitMs?: number;
  /** Of the node that runs it. */
  readonly nodeOptions?: readonly string[];
  /** Once it is aborted the child is asked to end (SIGTERM), ready or not. */
  readonly stop?: AbortSignal;
}

/**
 * Starts `entry` as a process of its own session (cwd /, no inherited descriptors), gives it `task`, hands its events to
 * `onEvent`, and returns when it says that it is ready; it then lives on without us. If it fails, or dies, that is thrown.
 * A child whose parent goes away before that undoes itself (ready.ts), so an interrupted command leaves nothing behind.
 */
export async function launch(
  entry: URL,
  task: unknown,
  onEvent: (event: unknown) => void,
  { limitMs, nodeOptions = [], stop }: LaunchOptions = {},
): Promise<void> {
  const child = spawn(process.execPath, [...nodeOptions, fileURLToPath(entry)], {
    cwd: '/',
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
  });
  const channel = child.stdio[CHANNEL_FD] as Duplex;
  const askToEnd = () => void child.kill('SIGTERM');
  stop?.addEventListener('abort', askToEnd);
  let timer: NodeJS.Timeout | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      hear(child, channel, onEvent, resolve, reject);
      channel.write(jsonLine(task));
      if (limitMs === undefined) return;
      timer = setTimeout(() => {
        child.kill('SIGKILL');
        reject(new DaemonError('time-limit', `not done within ${limitMs / 1000} s`));
      }, limitMs);
    });
  } finally {
    clearTimeout(timer);
    stop?.removeEventListener('abort', askToEnd);
    channel.destroy();
    child.unref();
  }
}

function hear(
  child: ChildProcess,
  channel: Duplex,
  onEvent: (event: unknown) => void,
  resolve: () => void,
  reject: (error: Error) => void,
): void {
  let failure: Error | undefined;
  hearChannel(channel, onEvent, resolve, (error) => {
    failure = error;
    setTimeout(reject, END_LIMIT_MS, failure).unref();
  });
  child.on('error', (cause) => reject(new DaemonError('system', `cannot start ${process.execPath}: ${cause.message}`)));
  // After a failure the caller hears of it when the child is gone, so that nothing of it is left behind.
  child.on('close', (status, signal) => {
    reject(failure ?? new DaemonError('died', `the background process ended early (${signal ?? `status ${status}`})`));
  });
}

/** Hears what a launched process says, up to its last word. */
export function hearChannel(
  channel: Duplex,
  onEvent: (event: unknown) => void,
  onReady: () => void,
  onFailed: (error: LaunchedError) => void,
): void {
  const lines = new JsonLines((value) => {
    const message = value as ChannelMessage;
    if (message.kind === 'event') onEvent(message.event);
    else if (message.kind === 'ready') onReady();
    else onFailed(new LaunchedError(message.code, message.message, message.stack));
  });
  channel.on('data', (bytes: Buffer) => {
    if (!lines.receive(bytes)) channel.destroy();
  });
  channel.on('error', () => {});
}
