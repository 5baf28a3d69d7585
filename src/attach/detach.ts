import type { ControlAnswer } from '../daemon/control.js';
import { isAlive, type RunState, readLastState, readState, removeRunFiles } from '../daemon/state-file.js';
import { dropPartitions } from '../kernel/device-child.js';
import { requireRoot } from '../kernel/nbd-device.js';
import { deviceUsers } from '../kernel/proc.js';
import { deviceState, requireDevice, waitFor } from '../kernel/sysfs.js';
import { refuseClaimed } from './claim.js';
import { type DeviceRecord, recordOf } from './devices.js';
import { disconnectInProcess } from './disconnect.js';
import { AttachError, attachErrorOf } from './errors.js';
import { detachLeftover, howToFree, isLate, isWithoutProcess } from './leftover.js';
import { dropNodes } from './nodes.js';
import { askOwner, isGone } from './owner.js';
import { explainSilence, rouseOwner } from './rouse.js';
import { describeUsers } from './users.js';

/** A flush of what the page cache holds, then the disconnect: the process that serves bounds both itself. */
const OWNER_LIMIT_MS = 90_000;
const FREE_LIMIT_MS = 15_000;
/** What is left for the process that served it when the device is free. One that does more than serving it goes on. */
const END_LIMIT_MS = 5_000;

/**
 * Detaches a device, ours or another program's, and returns only when the kernel says that it is free. Refuses while a
 * file system, swap or a device above uses it, unless forced. A device that is free already is no error. What the user
 * should know all the same is told to `onNotice`. Answers whether writes may have failed that nobody counted.
 */
export async function detachDevice(
  device: string,
  force: boolean,
  onNotice: (text: string) => void,
): Promise<{ readonly isUncounted: boolean }> {
  requireDevice(device);
  requireRoot(`detach /dev/${device}`);
  if (!force) {
    const users = deviceUsers(device);
    if (users.length > 0) {
      throw new AttachError(
        'busy',
        `/dev/${device} is in use: ${describeUsers(users)} (--force detaches it all the same)`,
      );
    }
    if (readState(device) === undefined && !isFree(device)) await refuseClaimed(device, 0);
  }
  const last = readLastState(device);
  const about = last?.about as Partial<DeviceRecord> | undefined;
  const isUncounted = recordOf(device)?.kind === 'remote' && !deviceState(device).readOnly;
  await letGo(device, force, onNotice);
  await waitUntilFree(device);
  if (last !== undefined) await waitUntilEnded(last);
  if (about?.destroyOnDisconnect)
    await waitFor(`/dev/${device} to be gone`, FREE_LIMIT_MS, () => !deviceState(device).exists);
  await dropPartitions(device);
  dropNodes(device, about);
  if (isFree(device)) removeRunFiles(device); // of a process that was killed when it had let the device go
  return { isUncounted };
}

/** The kernel lets go at the last close: a device cut under a file system is free when that is unmounted, not before. */
async function waitUntilFree(device: string): Promise<void> {
  const isSettled = () => isFree(device) || (deviceUsers(device).length > 0 && readState(device) === undefined);
  await waitFor(`/dev/${device} to be free`, FREE_LIMIT_MS, isSettled);
  if (isFree(device)) return;
  const users = describeUsers(deviceUsers(device));
  throw new AttachError('busy', `/dev/${device} is cut off, but not free until nothing uses it: ${users}`);
}

/** Who looks at an image right behind its detach must not find it locked. */
async function waitUntilEnded(owner: RunState): Promise<void> {
  if (owner.pid === process.pid) return;
  await waitFor(`process ${owner.pid} to end`, END_LIMIT_MS, () => !isAlive(owner)).catch(() => {});
}

function isFree(device: string): boolean {
  const { pid, sizeBytes } = deviceState(device);
  return pid === undefined && sizeBytes === 0 && readState(device) === undefined;
}

async function letGo(device: string, force: boolean, onNotice: (text: string) => void): Promise<void> {
  if (readState(device) !== undefined && (await detachByOwner(device, force, onNotice))) return;
  if (isWithoutProcess(device)) {
    if (!(await detachLeftover(device, force, onNotice))) await letGo(device, force, onNotice);
  } else if (deviceState(device).pid === undefined) removeRunFiles(device);
  else await disconnectForeign(device, force);
}

async function disconnectForeign(device: string, force: boolean): Promise<void> {
  try {
    if (force) await disconnectInProcess({ device, how: 'cut' }, FREE_LIMIT_MS);
    else await disconnectInProcess({ device, how: 'flush' }, OWNER_LIMIT_MS);
  } catch (error) {
    if (!isLate(error)) throw error;
    const flush = `what was written to it is not flushed in ${OWNER_LIMIT_MS / 1_000} s; try again, or lose it with --force`;
    throw new AttachError(
      'time-limit',
      `the kernel does not let go of /dev/${device}: ${force ? howToFree(undefined) : flush}`,
      error,
    );
  }
}

/** Answers false where it is gone. */
async function detachByOwner(device: string, force: boolean, onNotice: (text: string) => void): Promise<boolean> {
  const { countedSinceMs } = (readState(device)?.about ?? {}) as Partial<DeviceRecord>;
  await rouseOwner(device, force, onNotice);
  let answer: ControlAnswer;
  try {
    answer = await askOwner(device, { command: 'detach', force }, OWNER_LIMIT_MS);
  } catch (error) {
    if (await isGone(device, error)) return false;
    throw explainSilence(device, error);
  }
  const { writeErrors } = answer;
  if (typeof writeErrors === 'number' && writeErrors > 0) {
    const since = countedSinceMs === undefined ? 'while it was attached' : 'since its process was replaced';
    onNotice(`${writeErrors} writes to /dev/${device} failed ${since}`);
  }
  if (countedSinceMs !== undefined) {
    onNotice(`how many writes to /dev/${device} failed before its process was killed is not known`);
  }
  if (!answer.ok) throw attachErrorOf(answer);
  return true;
}
