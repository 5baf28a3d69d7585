import { setMaxListeners } from 'node:events';

/**
 * A signal that aborts after `limitMs` (0: never) with a TimeoutError, or with `stop`'s reason if that aborts before.
 * Node 20 loses the timeout of AbortSignal.any([stop, AbortSignal.timeout(…)]) at the next garbage collection: it holds
 * it weakly.
 */
export function deadlineAfter(limitMs: number, stop: AbortSignal): AbortSignal {
  setMaxListeners(0, stop); // any number of deadlines may end with it
  if (limitMs === 0) return stop;
  const controller = new AbortController();
  const { signal } = controller;
  const timer = setTimeout(() => controller.abort(new DOMException('the time limit passed', 'TimeoutError')), limitMs);
  timer.unref();
  if (stop.aborted) controller.abort(stop.reason);
  stop.addEventListener('abort', () => controller.abort(stop.reason), { once: true, signal });
  signal.addEventListener('abort', () => clearTimeout(timer), { once: true });
  return signal;
}
