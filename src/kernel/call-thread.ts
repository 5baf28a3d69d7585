import { Worker } from 'node:worker_threads';
import { messageOf } from '../base/message-of.js';

/** A call that may sleep in the kernel for as long as it likes, on the fd that it is made with. */
export type SleepyCall =
  | { readonly kind: 'ioctl'; readonly request: number; readonly value: number }
  /** write(2) of all of `bytes`. */
  | { readonly kind: 'write'; readonly bytes: Uint8Array };

export interface ThreadEnd {
  /** What the call answered: a number from 0 on, or −errno. */
  readonly result: number;
  /** Why the thread could not make it. */
  readonly cause?: unknown;
}

/** What a thread is asked for: the call, on the main thread's `fd`. */
export interface ThreadTask {
  readonly fd: number;
  readonly call: SleepyCall;
}

/**
 * What a thread tells: that it makes its call now; what the call answered, and whether another may follow. By then it has
 * let go of the fd.
 */
export type ThreadWord = 'begins' | { readonly result: number; readonly waits: boolean };

/**
 * Threads that have made their call. Each has a table of fds of its own, and those that its event loop made before it had stay
 * in the process's: so a thread is used again.
 */
const waiting: Worker[] = [];

/** Makes a call in a thread of its own (do-it-thread.ts). `onBegin` hears when it is made. */
export async function callInThread(fd: number, call: SleepyCall, onBegin: () => void = () => {}): Promise<ThreadEnd> {
  const task: ThreadTask = { fd, call };
  const worker = waiting.pop();
  if (worker === undefined) return startThread(task, onBegin);
  worker.ref();
  worker.postMessage(task);
  return endOf(worker, onBegin);
}

async function startThread(workerData: ThreadTask, onBegin: () => void): Promise<ThreadEnd> {
  try {
    const thread = new Worker(new URL('./do-it-thread.js', import.meta.url), { workerData, execArgv: [] });
    return await endOf(thread, onBegin);
  } catch (cause) {
    const why = messageOf(cause);
    return { result: -1, cause: new Error(`no thread can be started: ${why}`, { cause }) };
  }
}

function endOf(worker: Worker, onBegin: () => void): Promise<ThreadEnd> {
  return new Promise((resolve) => {
    const onWord = (word: ThreadWord) => {
      if (word === 'begins') onBegin();
      else end({ result: word.result }, word.waits);
    };
    const onError = (cause: unknown) => end({ result: -1, cause });
    const onExit = () => onError(new Error('the thread ended without an answer'));
    const end = (how: ThreadEnd, waits = false) => {
      worker.off('message', onWord).off('error', onError).off('exit', onExit);
      if (waits) {
        worker.unref();
        waiting.push(worker);
      }
      resolve(how);
    };
    worker.on('message', onWord).on('error', onError).on('exit', onExit);
  });
}
