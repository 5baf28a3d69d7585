// The limit of a socket's send buffer (net.core.wmem_max), which a case can have at the kernel's default.
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Where the kernel has it. */
export const SEND_LIMIT = '/proc/sys/net/core/wmem_max';
/** The kernel's own (net/core/sock.c: SK_WMEM_MAX). */
export const DEFAULT_BYTES = 212_992;
/** Starts a program that may not pass the limit, though root starts it. */
export const UNDER_LIMIT = ['setpriv', '--bounding-set=-net_admin', '--inh-caps=-net_admin'];
/** In a run's folder: the limit as it was, to be put back whatever becomes of the run. */
export const KEPT_LIMIT = 'wmem_max';

/** Whether the limit is at the default, or can be put there. @param {string} [path] */
export function canHaveDefault(path = SEND_LIMIT) {
  const limit = readFileSync(path, 'latin1').trim();
  if (limit === String(DEFAULT_BYTES)) return true;
  try {
    writeFileSync(path, limit);
    return true;
  } catch {
    return false;
  }
}

/**
 * Does something while the limit is at the default.
 * @template T
 * @param {string} folder the run's
 * @param {() => Promise<T>} act
 * @param {string} [path]
 */
export async function atDefaultLimit(folder, act, path = SEND_LIMIT) {
  const limit = readFileSync(path, 'latin1').trim();
  if (limit === String(DEFAULT_BYTES)) return act();
  writeFileSync(join(folder, KEPT_LIMIT), limit);
  writeFileSync(path, String(DEFAULT_BYTES));
  try {
    return await act();
  } finally {
    putBack(folder, path);
  }
}

/**
 * Puts back what `atDefaultLimit` changed, if it has not done so itself. Synchronous, for exit handlers.
 * @param {string} folder
 * @param {string} [path]
 */
export function putBack(folder, path = SEND_LIMIT) {
  const kept = join(folder, KEPT_LIMIT);
  try {
    writeFileSync(path, readFileSync(kept));
    rmSync(kept);
  } catch {
    // It was not changed.
  }
}
