import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

/**
 * A thread of a program beside this file, which has said something (`said`), waits until `go[0]` is 1, and says something
 * again (`answer`). `go[1]` is the program's.
 */
export async function startWaiting(program: string, data: object) {
  const go = new Int32Array(new SharedArrayBuffer(8));
  const thread = new Worker(new URL(program, import.meta.url), {
    workerData: { ...data, go },
    trackUnmanagedFds: false, // libc closes some, too
  });
  const [said] = await once(thread, 'message');
  return { thread, go, said, answer: once(thread, 'message') };
}

/** Lets such a thread go on. */
export function letGo(go: Int32Array): void {
  Atomics.store(go, 0, 1);
  Atomics.notify(go, 0);
}
