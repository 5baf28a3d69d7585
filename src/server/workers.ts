import { closeSync, writeSync } from 'node:fs';
import type { Worker } from 'node:worker_threads';
import { invariant } from '../base/invariant.js';
import { messageOf } from '../base/message-of.js';
import type { ImageHandle } from '../image/open-image.js';
import { shutdownFd, shutdownReading } from '../kernel/fd-calls.js';
import { closePipe, makePipe, type Pipe } from '../kernel/pipe-calls.js';
import type { MetaContext } from '../protocol/meta-context.js';
import type { ExportRules } from '../protocol/request-rules.js';
import { type Activity, newActivity } from './activity.js';
import { ServerError } from './errors.js';
import { DRAIN, HALT, type LoopEnd, SERVE } from './loop-end.js';
import { CLIENTS_MAX } from './places.js';
import { startWorker } from './spare-workers.js';

export interface ConnectionStart {
  /** A connected, blocking stream socket; ours from here on. */
  readonly socketFd: number;
  readonly image: ImageHandle;
  readonly rules: ExportRules;
  /** The metadata contexts that the client chose. */
  readonly contexts: readonly MetaContext[];
  /** Bytes that came behind the handshake. */
  readonly received: Uint8Array;
  /** Its buffers stay in memory while it is idle. */
  readonly keepsMemory?: true;
  /** Whether `halt` may be called; for the kernel, as the only client of its image. */
  readonly mayHalt?: boolean;
}

export type ConnectionEnd =
  /** The client said DISC, closed its end, or was asked to go by `drain`. */
  | { readonly kind: 'left'; readonly how: 'disconnected' | 'closed' | 'stopped' }
  /** The socket is the caller's again (LoopEnd). */
  | { readonly kind: 'left'; readonly how: 'halted'; readonly errno: number }
  | { readonly kind: 'failed'; readonly error: ServerError };

/** A connection that a worker serves. */
export interface ServedConnection {
  /** Resolves when the worker is gone, or done with it, and the socket is closed unless it was halted; what was written is flushed. Never rejects. */
  readonly ended: Promise<ConnectionEnd>;
  /** How many writes and flushes it has answered with an error. */
  writeErrors(): number;
  /**
   * Lets the worker answer the requests it has, refuse those that have come behind them with ESHUTDOWN, and end. It waits for no more:
   * Linux makes an I/O error of ESHUTDOWN, but keeps the requests of a connection that ends for the next one. A unix socket takes
   * nothing more from the client from here on.
   */
  drain(): void;
  /** Lets the worker end between two requests, at the latest a second after the last. */
  halt(): void;
  /** A worker that was to halt serves on, unless it has halted already. */
  goOn(): void;
  /** Cuts the connection; a worker that waits for its client ends at once, one that waits for a disk after that. */
  shutdown(): void;
}

/** What a worker is told. */
export interface WorkerTask extends ConnectionStart {
  /** One field, written here: SERVE, DRAIN or HALT. */
  readonly stop: Int32Array<SharedArrayBuffer>;
  readonly writeErrors: Int32Array<SharedArrayBuffer>;
  readonly activity: Activity;
  /** Where it hears that it is to look at `stop`; below 0 where only its client can wake it. */
  readonly bellFd: number;
  /** Its field in `activity`. */
  readonly worker: number;
  /** Then the worker ends. */
  readonly isLast: boolean;
}

const activity = newActivity(CLIENTS_MAX);
/** The fields of `activity` that no worker has. */
const freeFields = Array.from({ length: CLIENTS_MAX }, (_, field) => CLIENTS_MAX - 1 - field);

/**
 * Has a worker, a new one where none was started before, serve one connection; with `isLast` false it may be given another when the
 * connection has ended. On the main thread, with libc loaded.
 */
export function startConnection(start: ConnectionStart, worker = startWorker(), isLast = true): ServedConnection {
  const stop = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  const writeErrors = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  const bell = start.mayHalt === true ? bellOf(worker) : undefined;
  const field = freeFields.pop();
  invariant(field !== undefined, `at most ${CLIENTS_MAX} connections are served`);
  // A view is cloned with all of the memory behind it.
  const task: WorkerTask = {
    ...start,
    received: start.received.slice(),
    stop,
    writeErrors,
    activity,
    worker: field,
    isLast,
    bellFd: bell?.readFd ?? -1,
  };
  worker.postMessage(task);
  let open = true;
  const unlessClosed = (act: (fd: number) => void) => {
    if (open) act(start.socketFd);
  };

  const ended = new Promise<ConnectionEnd>((resolve) => {
    let end: ConnectionEnd = { kind: 'failed', error: new ServerError('died', 'the worker ended without a word') };
    const onMessage = (loopEnd: LoopEnd) => {
      end = connectionEnd(loopEnd);
      if (!isLast) onEnd();
    };
    const onError = (cause: unknown) => {
      const why = messageOf(cause);
      end = { kind: 'failed', error: new ServerError('died', `the worker broke: ${why}`, { cause }) };
    };
    const onEnd = () => {
      worker.off('message', onMessage).off('error', onError).off('exit', onEnd);
      open = false;
      freeFields.push(field);
      if (bell !== undefined) closePipe(bell);
      if (end.kind === 'left' && end.how === 'halted') return resolve(end);
      // Whatever ended the worker, the client sees the end, even while somebody holds a copy of the fd.
      shutdownFd(start.socketFd);
      closeSync(start.socketFd);
      resolve(end);
    };
    worker.on('message', onMessage).on('error', onError).on('exit', onEnd);
  });
  return {
    ended,
    writeErrors: () => Atomics.load(writeErrors, 0),
    drain: () => {
      Atomics.store(stop, 0, DRAIN);
      unlessClosed(shutdownReading);
    },
    halt: () => {
      invariant(bell !== undefined, 'who may halt was started so');
      Atomics.store(stop, 0, HALT);
      if (open) writeSync(bell.writeFd, 'x');
    },
    goOn: () => void Atomics.compareExchange(stop, 0, HALT, SERVE),
    shutdown: () => {
      Atomics.store(stop, 0, DRAIN);
      unlessClosed(shutdownFd);
    },
  };
}

/** Rung by a byte; a worker hears it that has waited for its client for a second, and looks by itself before. */
function bellOf(worker: Worker): Pipe {
  const bell = makePipe();
  if (bell !== undefined) return bell;
  void worker.terminate();
  throw new ServerError('system', 'no pipe can be made to wake a thread by');
}

function connectionEnd(end: LoopEnd): ConnectionEnd {
  return end.kind === 'left' ? end : { kind: 'failed', error: new ServerError(end.code, end.message) };
}
