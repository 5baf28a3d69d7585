import { Worker } from 'node:worker_threads';

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

/** What do-it-thread.ts is started with. */
export interface ThreadTask {
  readonly fd: number;
  readonly call: SleepyCall;
}

/** What a thread tells before it makes its call; then it tells the result. */
export const BEGINS = 'begins';

/** Makes a call in a thread of its own (do-it-thread.ts); resolves when that is gone. `onBegin` hears when it is made. */
export function callInThread(fd: number, call: SleepyCall, onBegin: () => void = () => {}): Promise<ThreadEnd> {
  const worker = new Worker(new URL('./do-it-thread.js', import.meta.url), {
    workerData: { fd, call } satisfies ThreadTask,
    execArgv: [],
  });
  return new Promise((resolve) => {
    let end: ThreadEnd = { result: -1, cause: new Error('the thread ended without an answer') };
    worker.on('message', (told: typeof BEGINS | number) => {
      if (told === BEGINS) onBegin();
      else end = { result: told };
    });
    worker.once('error', (cause) => {
      end = { result: -1, cause };
    });
    worker.once('exit', () => resolve(end));
  });
}
