/** Aborted once the process is asked to end: by SIGTERM, SIGINT, or when `other` is aborted. SIGHUP is ignored. */
export function stopOnSignals(other?: AbortSignal): AbortSignal {
  const stop = new AbortController();
  process.on('SIGHUP', () => {});
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => stop.abort(new Error(`ended by ${signal}`)));
  }
  return other === undefined ? stop.signal : AbortSignal.any([stop.signal, other]);
}
