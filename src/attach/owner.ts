import { askControl, type ControlAnswer } from '../daemon/control.js';
import { DaemonError } from '../daemon/errors.js';
import { readState } from '../daemon/state-file.js';
import { waitFor } from '../kernel/sysfs.js';

/** What the kernel needs to take a process down that was killed, on a machine that is busy. */
const END_LIMIT_MS = 5_000;
const STATUS_LIMIT_MS = 2_000;

/**
 * Asks the process that answers for a device. One that ends because another takes its place (restart) is no answer: then
 * that one is asked.
 *
 * @throws DaemonError
 */
export async function askOwner(device: string, question: unknown, limitMs: number): Promise<ControlAnswer> {
  for (;;) {
    const pid = readState(device)?.pid;
    try {
      return await askControl(device, question, limitMs);
    } catch (error) {
      const now = readState(device)?.pid;
      if (now === undefined || now === pid) throw error;
    }
  }
}

/** What the process behind a device says of it; one of ours that is stopped is not waited for. @throws DaemonError */
export function askStatus(device: string): Promise<ControlAnswer> {
  return askOwner(device, { command: 'status' }, STATUS_LIMIT_MS);
}

/**
 * Whether this came of asking a process that was killed, before it was asked or while it was: its socket is closed a moment
 * before all of it is gone.
 */
export async function isGone(device: string, error: unknown): Promise<boolean> {
  if (!(error instanceof DaemonError && (error.code === 'not-running' || error.code === 'died'))) return false;
  const look = () => readState(device) === undefined;
  return waitFor(`the process behind /dev/${device} to be gone`, END_LIMIT_MS, look).then(
    () => true,
    () => false,
  );
}
