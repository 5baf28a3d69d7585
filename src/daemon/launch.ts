import { type ChildProcess, spawn } from 'node:child_process';
import type { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { DaemonError } from './errors.js';
import { JsonLines, jsonLine } from './json-lines.js';

/** The descriptor by which a launched process hears its task and tells how it goes. */
export const CHANNEL_FD = 3;
/** The first of those that it is given beside that. */
export const FIRST_GIVEN_FD = 4;

/** A process that failed and does not end (it ends itself before that: exit.ts) is not waited for longer. */
const END_LIMIT_MS = 15_000;

/** The task is sent first; then the child speaks, is perhaps told more, and its last word is 'ready' or 'failed'. */
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
  /** What the child gets beside its channel, from FIRST_GIVEN_FD on. */
  readonly fds?: readonly number[];
  /** Another program than the one that runs here. */
  readonly execPath?: string;
  /** A failure is thrown only once the child is gone, however long that takes: for what two must not do at a time. */
  readonly waitsForEnd?: boolean;
}

/**
 * Starts `entry` as a process of its own session (cwd /, no descriptors but those it is given), gives it `task`, hands its
 * events to `onEvent`, which may `tell` it more, and returns its process number when it says that it is ready; it then
 * lives on without us. If it fails, or dies, that is thrown. A child whose parent goes away before that undoes itself
 * (ready.ts), so an interrupted command leaves nothing behind.
 */
export async function launch(
  entry: URL,
  task: unknown,
  onEvent: (event: unknown, tell: (message: unknown) => void) => void,
  { limitMs, nodeOptions = [], stop, fds = [], execPath = process.execPath, waitsForEnd = false }: LaunchOptions = {},
): Promise<number> {
  const child = spawn(execPath, [...nodeOptions, fileURLToPath(entry)], {
    cwd: '/',
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore', 'pipe', ...fds],
  });
  const channel = child.stdio[CHANNEL_FD] as Duplex;
  const tell = (message: unknown) => void channel.write(jsonLine(message));
  const askToEnd = () => void child.kill('SIGTERM');
  stop?.addEventListener('abort', askToEnd);
  let timer: NodeJS.Timeout | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      const ends = new Ending(child, waitsForEnd, reject);
      hear(child, channel, (event) => onEvent(event, tell), resolve, ends);
      tell(task);
      if (limitMs === undefined) return;
      timer = setTimeout(() => {
        child.kill('SIGKILL');
        ends.fail(new DaemonError('time-limit', `not done within ${limitMs / 1000} s`), 0);
      }, limitMs);
    });
    return child.pid ?? 0;
  } finally {
    clearTimeout(timer);
    stop?.removeEventListener('abort', askToEnd);
    channel.destroy();
    child.unref();
  }
}

/** How a child that failed comes to its end: it is waited for, so that nothing of it is left behind. */
class Ending {
  readonly #child: ChildProcess;
  readonly #waitsForEnd: boolean;
  readonly #reject: (error: Error) => void;
  #failure: Error | undefined;

  constructor(child: ChildProcess, waitsForEnd: boolean, reject: (error: Error) => void) {
    this.#child = child;
    this.#waitsForEnd = waitsForEnd;
    this.#reject = reject;
  }

  /** It ends itself (exit.ts); after `limitMs` it is not waited for any longer, or, if it must be, killed. */
  fail(error: Error, limitMs: number): void {
    this.#failure ??= error;
    const late = () => {
      if (this.#waitsForEnd) this.#child.kill('SIGKILL');
      else this.#reject(error);
    };
    setTimeout(late, limitMs).unref();
  }

  gone(how: string): void {
    this.#reject(this.#failure ?? new DaemonError('died', `the background process ended early (${how})`));
  }
}

function hear(
  child: ChildProcess,
  channel: Duplex,
  onEvent: (event: unknown) => void,
  onReady: () => void,
  ends: Ending,
): void {
  hearChannel(channel, onEvent, onReady, (error) => ends.fail(error, END_LIMIT_MS));
  child.on('error', (cause) => {
    ends.fail(new DaemonError('system', `cannot start ${child.spawnfile}: ${cause.message}`), 0);
    if (child.pid === undefined) ends.gone('');
  });
  child.on('close', (status, signal) => ends.gone(`${signal ?? `status ${status}`}`));
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
