import { closeSync, constants, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { deviceIndex } from '../kernel/device-name.js';
import { lockByteWrite } from '../kernel/fd-calls.js';
import { AttachError } from './errors.js';

/** Beside the folder of what runs: it stays, because a lock on a file that somebody removes is none. */
const LOCK_FILE = '/run/tsnbd-devices.lock';
/** A disconnect, or the reconnecting of a device, takes no longer. */
const LOCK_LIMIT_MS = 60_000;
const LOCK_POLL_MS = 20;

/**
 * Does `act` while no other process of ours takes a device down that has none, or goes on with it. Each device is a byte of
 * one file; the end of the process lets it go, too.
 *
 * @throws AttachError 'busy' at the limit, 'system' where /run cannot be written; what `act` throws
 */
export async function withDeviceLock<T>(device: string, act: () => Promise<T>): Promise<T> {
  const fd = openLockFile();
  try {
    for (const end = performance.now() + LOCK_LIMIT_MS; !lockByteWrite(fd, deviceIndex(device)); ) {
      if (performance.now() > end)
        throw new AttachError('busy', `/dev/${device} is taken down or over by another process`);
      await sleep(LOCK_POLL_MS);
    }
    return await act();
  } finally {
    closeSync(fd);
  }
}

function openLockFile(): number {
  try {
    return openSync(LOCK_FILE, constants.O_RDWR | constants.O_CREAT, 0o600);
  } catch (cause) {
    throw new AttachError('system', `cannot write ${LOCK_FILE} (${(cause as NodeJS.ErrnoException).code})`, cause);
  }
}
