import { setTimeout as sleep } from 'node:timers/promises';
import { readState } from '../daemon/state-file.js';
import { deviceUsers } from '../kernel/proc.js';
import { detachDevice } from './detach.js';

/**
 * - 'detached': it is free
 * - 'used': something else uses it, and whoever lets go last may detach it
 * - 'later': a file system that was unmounted still writes; the process behind the device detaches it when that is over
 * - 'stays': the same, but there is no process
 */
export type UnusedEnd = 'detached' | 'used' | 'later' | 'stays';

export interface UnusedOptions {
  /** So long is waited for a file system that was unmounted, and is still in use. */
  readonly claimedLimitMs: number;
  /** Detach it although it has no connection to its server, or the server does not take what is to be written. */
  readonly force: boolean;
  readonly onNotice: (text: string) => void;
}

const POLL_MS = 200;

/**
 * Detaches a device that was made for mounts, if nothing uses it any more. An open with O_EXCL, by a process that does not
 * serve it, tells of a file system that was unmounted lazily (detachDevice).
 *
 * @throws what detachDevice does, but not that it is busy
 */
export async function detachUnused(device: string, options: UnusedOptions): Promise<UnusedEnd> {
  const { claimedLimitMs, force, onNotice } = options;
  const end = performance.now() + claimedLimitMs;
  for (;;) {
    if (deviceUsers(device).some(({ kind }) => kind === 'mount' || kind === 'swap')) return 'used';
    try {
      await detachDevice(device, false, onNotice);
      return 'detached';
    } catch (error) {
      const { code } = error as { code?: unknown };
      if (code !== 'busy') {
        if (!force) throw error;
        await detachDevice(device, true, onNotice);
        return 'detached';
      }
    }
    if (performance.now() >= end) break;
    await sleep(POLL_MS);
  }
  const pid = readState(device)?.pid;
  if (pid === undefined) return 'stays';
  process.kill(pid, 'SIGTERM'); // it detaches once nothing uses the device
  return 'later';
}
