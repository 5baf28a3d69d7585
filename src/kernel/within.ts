/** What `promise` resolves to, or 'late' after `limitMs`; then what becomes of it is no longer heard, not even a failure. */
export function within<T>(promise: Promise<T>, limitMs: number): Promise<T | 'late'> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<'late'>((resolve) => {
    timer = setTimeout(resolve, limitMs, 'late'); // a promise of Node's that is given up takes 20 times as long to make
  });
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer));
}
