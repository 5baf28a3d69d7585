import { setTimeout as sleep } from 'node:timers/promises';

/** What `promise` resolves to, or 'late' after `limitMs`; then what becomes of it is no longer heard, not even a failure. */
export async function within<T>(promise: Promise<T>, limitMs: number): Promise<T | 'late'> {
  const ended = new AbortController();
  const limit = sleep(limitMs, 'late' as const, { signal: ended.signal }).catch(() => 'late' as const);
  try {
    return await Promise.race([promise, limit]);
  } finally {
    ended.abort();
  }
}
