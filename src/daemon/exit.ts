import { exitNow } from '../kernel/fd-calls.js';

/**
 * To be called when a process has nothing left to do. It then ends by itself; only if something still holds it (a thread
 * in a call that does not return: process.exit() would wait for that for ever) is it ended at the limit.
 */
export function endWithin(limitMs: number): void {
  setTimeout(() => exitNow(process.exitCode === undefined ? 1 : Number(process.exitCode)), limitMs).unref();
}
