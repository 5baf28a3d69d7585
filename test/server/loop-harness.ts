import { once } from 'node:events';
import { closeSync, writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { shutdownFd, shutdownReading, socketPair } from '#tsnbd/kernel/fd-calls.js';
import { makePipe } from '#tsnbd/kernel/pipe-calls.js';
import type { MetaContext } from '#tsnbd/protocol/meta-context.js';
import type { ReplyStyle } from '#tsnbd/protocol/reply.js';
import { DRAIN, HALT, type LoopEnd } from '#tsnbd/server/loop-end.js';
import { RawClient } from './raw-client.js';

/** The image's calls, as fields of `faults` and `counts`; DURABLE counts writes, zeroes and trims with FUA. */
export const CALLS = { READ: 0, WRITE: 1, ZERO: 2, TRIM: 3, FLUSH: 4, DURABLE: 5, STATUS: 9, CACHE: 10 } as const;
/** A field of `counts`: calls that were held up. */
export const HELD = 6;
/** A field of `counts`: places that were found and not let go. */
export const PLACES = 7;
/** A field of `counts`: writes that begin within a block of 4096. */
export const WITHIN_BLOCK = 8;
/** Fields of `faults`, a bit a ticket: which begun writes are done, and which of them have failed. */
export const BEGUN = { DONE: 6, FAILED: 7 } as const;
export type Call = (typeof CALLS)[keyof typeof CALLS];

/** A larger image has no memory behind the rest. */
const MEMORY_BYTES_MAX = 67_108_864;

export interface LoopThreadData {
  readonly socketFd: number;
  readonly sizeBytes: number;
  readonly memory: Uint8Array;
  readonly readOnly: boolean;
  readonly minimumBlockBytes: number;
  readonly replyStyle: ReplyStyle;
  readonly contexts: readonly MetaContext[];
  /** Blocks of 4096 zeroes are holes. */
  readonly sparse: boolean;
  /** The first byte of a block of 4096 that cannot be read; -1: there is none. */
  readonly badBlockBytes: number;
  /** Zeroing means writing zeroes. */
  readonly slowZero: boolean;
  /** A FLUSH that is held up does not hold up others, from the second on; this is readable when it goes on. */
  readonly flushFd: number;
  /** WRITEs are begun, and done when the test says so; this is readable when it has. */
  readonly begunFd: number;
  /** What the first blocks of 4096 are read from, beside others: pipes, from which a read comes when the test writes. -1: from none. */
  readonly slowFds: readonly number[];
  readonly bellFd: number;
  readonly received: Uint8Array;
  readonly stop: Int32Array;
  readonly writeErrors: Int32Array;
  readonly faults: Int32Array;
  readonly counts: Int32Array;
}

export interface Loop {
  readonly client: RawClient;
  readonly memory: Uint8Array;
  /** The errno that a call answers from now on; -1 holds it up. */
  fail(call: Call, errno: number): void;
  /** Says of begun writes, by their tickets, that they are done or have failed. */
  finish(tickets: { readonly done: readonly number[]; readonly failed?: readonly number[] }): void;
  count(what: Call | typeof HELD | typeof PLACES | typeof WITHIN_BLOCK): number;
  stop(): void;
  halt(): void;
  readonly end: Promise<LoopEnd>;
}

/** The request loop in a thread at one end of a socketpair, a raw client at the other, an image in memory behind it. */
export function startLoop(options: Partial<LoopThreadData> = {}): Loop {
  const [clientFd, socketFd] = socketPair();
  const bell = makePipe();
  if (bell === undefined) throw new Error('there is no pipe to be had');
  const shared = (length: number) => new Int32Array(new SharedArrayBuffer(4 * length));
  const [stop, faults, counts, writeErrors] = [shared(1), shared(11), shared(11), shared(1)];
  const sizeBytes = options.sizeBytes ?? 1_048_576;
  const memory = new Uint8Array(new SharedArrayBuffer(Math.min(sizeBytes, MEMORY_BYTES_MAX)));
  const workerData: LoopThreadData = {
    socketFd,
    sizeBytes,
    memory,
    readOnly: false,
    minimumBlockBytes: 1,
    replyStyle: 'simple',
    contexts: [],
    sparse: false,
    badBlockBytes: -1,
    slowZero: false,
    flushFd: -1,
    begunFd: -1,
    slowFds: [],
    bellFd: bell.readFd,
    received: new Uint8Array(0),
    stop,
    writeErrors,
    faults,
    counts,
    ...options,
  };
  const worker = new Worker(new URL('./loop-thread.js', import.meta.url), { workerData, trackUnmanagedFds: false });
  const end = once(worker, 'message').then(([loopEnd]) => loopEnd as LoopEnd);
  worker.on('exit', () => {
    shutdownFd(socketFd);
    for (const fd of [socketFd, bell.readFd, bell.writeFd]) closeSync(fd);
  });
  return {
    client: RawClient.onFd(clientFd),
    memory,
    fail: (call, errno) => {
      Atomics.store(faults, call, errno);
      Atomics.notify(faults, call);
    },
    finish: ({ done, failed = [] }) => {
      for (const ticket of failed) Atomics.or(faults, BEGUN.FAILED, 1 << ticket);
      for (const ticket of [...done, ...failed]) Atomics.or(faults, BEGUN.DONE, 1 << ticket);
      Atomics.notify(faults, BEGUN.DONE);
    },
    count: (what) => Atomics.load(counts, what),
    stop: () => {
      Atomics.store(stop, 0, DRAIN);
      shutdownReading(socketFd);
    },
    halt: () => {
      Atomics.store(stop, 0, HALT);
      writeSync(bell.writeFd, 'x');
    },
    end,
  };
}
