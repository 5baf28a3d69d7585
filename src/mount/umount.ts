import { realpathSync } from 'node:fs';
import type { OnAttachEvent } from '../attach/attach-event.js';
import { detachDevice } from '../attach/detach.js';
import { detachUnused, type UnusedEnd, type UnusedOptions } from '../attach/detach-unused.js';
import { describeDevice, type RecordedDevice, recordedDevices } from '../attach/devices.js';
import { messageOf } from '../base/message-of.js';
import { type MountedDevice, mountAt, mountedDevice } from '../kernel/mount-table.js';
import { requireRoot } from '../kernel/nbd-device.js';
import type { ProgramEnd } from '../kernel/run-program.js';
import { within } from '../kernel/within.js';
import { MountError } from './errors.js';
import { LOCK_LIMIT_MS, takeLock } from './locks.js';
import { complaint, isShuttingDown, type PlainUnmount, unmountFileSystem } from './programs.js';
import { releaseUnused } from './release-unused.js';
import { sourceName } from './source.js';

/** A file system that was unmounted may still be in use by a program of the kernel's for a moment; a lazy one for long. */
const CLAIMED_LIMIT_MS = 15_000;
const LAZY_CLAIMED_LIMIT_MS = 500;

/** An unmount writes what is to be written, for as long as that takes; but a machine that goes down waits for no server. */
const UNMOUNT_LIMIT_MS = 24 * 3_600_000;
const SHUTDOWN_LOOK_MS = 20_000;

/**
 * Unmounts, and detaches the device behind it when that was made for mounts and nothing else uses it. What is mounted there
 * and is none of ours is only unmounted: the entry that led umount(8) to us may be an old one.
 *
 * @throws MountError 'failed' when it stays mounted; 'system' when it is unmounted, and its device stays although nothing uses it
 */
export async function unmountFolder(unmount: PlainUnmount, onEvent: OnAttachEvent): Promise<void> {
  const { namespace } = unmount;
  requireRoot('unmount a network block device');
  const folder = namespace === undefined ? realFolder(unmount.folder) : unmount.folder;
  const unlock = await takeLock({ folder }, LOCK_LIMIT_MS);
  if (unlock === undefined) throw new MountError('failed', `another mount or unmount of ${folder} has not ended`);
  try {
    await unmountLocked({ ...unmount, folder }, onEvent);
  } finally {
    unlock();
  }
  await releaseUnused(onEvent);
}

async function unmountLocked(unmount: PlainUnmount, onEvent: OnAttachEvent): Promise<void> {
  const { folder, namespace } = unmount;
  const before = deviceAt(folder, namespace);
  const found = recordedDevices().find(({ device }) => device === before?.device);
  onEvent({ kind: 'step', step: 'unmount' });
  const end = await unmounted(unmount, found, onEvent);
  const isSame = before !== undefined && deviceAt(folder, namespace)?.node === before.node;
  if (end.status !== 0 && (before === undefined || isSame)) {
    throw new MountError('failed', `cannot unmount ${folder}: ${complaint(end, folder)}`);
  }
  // What failed although it is unmounted is an entry that could not be removed.
  if (end.status === 0 && end.stderr !== '') onEvent({ kind: 'notice', text: complaint(end, folder) });
  // Made read-only in its place, or mounted there more than once.
  if (isSame || found?.record.forMounts !== true) return;
  await release(unmount, found, onEvent);
}

async function release(
  { folder, lazy, force }: PlainUnmount,
  { device, record }: RecordedDevice,
  onEvent: OnAttachEvent,
): Promise<void> {
  const unlock = await takeLock({ source: sourceName(record) }, LOCK_LIMIT_MS);
  if (unlock === undefined) return; // it is being mounted elsewhere: that mount, or its end, has the device now
  onEvent({ kind: 'step', step: 'detach' });
  const notice = (text: string) => onEvent({ kind: 'notice', text });
  try {
    const claimedLimitMs = lazy ? LAZY_CLAIMED_LIMIT_MS : CLAIMED_LIMIT_MS;
    const end = await detached(device, { claimedLimitMs, force, onNotice: notice });
    if (end === 'later') notice(`${folder} is still in use: /dev/${device} is detached when that is over`);
    if (end === 'stays')
      notice(`${folder} is still in use: when that is over, detach /dev/${device} by: tsnbd -d ${device}`);
  } catch (error) {
    const why = messageOf(error);
    throw new MountError('system', `${folder} is unmounted, but /dev/${device} stays attached: ${why}`, error);
  } finally {
    unlock();
  }
}

/** All that was written is: the unmount waited for it. A machine that goes down does not wait for the server to be back. */
async function detached(device: string, options: UnusedOptions): Promise<UnusedEnd> {
  try {
    return await detachUnused(device, options);
  } catch (error) {
    if ((error as { code?: unknown }).code !== 'no-connection' || !(await isShuttingDown())) throw error;
    return detachUnused(device, { ...options, force: true });
  }
}

/** A server that is gone keeps an unmount waiting; once the machine goes down it is cut off, and what waits fails. */
async function unmounted(
  unmount: PlainUnmount,
  found: RecordedDevice | undefined,
  onEvent: OnAttachEvent,
): Promise<ProgramEnd> {
  const running = unmountFileSystem(unmount, UNMOUNT_LIMIT_MS);
  if (found === undefined || found.record.kind !== 'remote') return running;
  const { device } = found;
  for (;;) {
    const end = await within(running, SHUTDOWN_LOOK_MS);
    if (end !== 'late') return end;
    if ((await isWithoutServer(device)) && (await isShuttingDown())) break;
  }
  onEvent({
    kind: 'notice',
    text: `/dev/${device} has no connection to its server: it is cut off, and what was not written is lost`,
  });
  await detachDevice(device, true, () => {}).catch(() => {}); // it is free when it is unmounted
  return running;
}

async function isWithoutServer(device: string): Promise<boolean> {
  const described = await describeDevice(device).catch(() => undefined);
  return described?.state !== 'connected';
}

function deviceAt(folder: string, namespace: string | undefined): MountedDevice | undefined {
  const mount = mountAt(folder, namespace);
  return mount === undefined ? undefined : mountedDevice(mount);
}

/** The folder as the table of mounts calls it; what does not exist is left to umount(8) to complain of. */
function realFolder(folder: string): string {
  if (mountAt(folder) !== undefined) return folder;
  try {
    return realpathSync(folder);
  } catch {
    return folder;
  }
}
