import { statSync } from 'node:fs';
import { DaemonError } from '../daemon/errors.js';
import { readLastState, readState, removeRunFiles } from '../daemon/state-file.js';
import { flushDevice } from '../kernel/device-child.js';
import { isOfDeadProcess, isUnattended } from '../kernel/device-owner.js';
import { type Leftover, requireRoot } from '../kernel/nbd-device.js';
import { deviceUsers, type FileUser, processesWithFileOpen } from '../kernel/proc.js';
import { deviceBackend, deviceState, waitFor } from '../kernel/sysfs.js';
import { endTcp } from '../kernel/tcp-end.js';
import { withDeviceLock } from './device-lock.js';
import type { DeviceRecord } from './devices.js';
import { type DisconnectTask, disconnectInProcess } from './disconnect.js';
import { AttachError } from './errors.js';
import { dropNodes } from './nodes.js';
import { askStatus, isGone } from './owner.js';
import { describeUsers } from './users.js';

/** A server that is there answers a flush of next to nothing, and a disconnect; one that is not must not keep us. */
const FLUSH_LIMIT_MS = 10_000;
const DISCONNECT_LIMIT_MS = 20_000;
/** Before the connections of a disconnect that waits are ended: it keeps everybody's generic netlink waiting. */
const STUCK_MS = 5_000;
const FREE_LIMIT_MS = 10_000;

type OnNotice = (text: string) => void;

/**
 * Whose a device is. The identifier that a user chose says nothing of that, so the state file has our mark beside it, and is
 * believed while the device carries the identifier that it tells.
 */
function leftoverOf(device: string): Leftover {
  const backend = deviceBackend(device);
  const about = readLastState(device)?.about;
  const isTold = about !== undefined && backend !== undefined && about.backend === backend;
  return { backend, owner: isTold && typeof about.owner === 'string' ? about.owner : backend };
}

/**
 * A device that a process of ours connected by netlink, and left in the kernel when it was killed. The mark is that of the
 * process that connected it; one that has taken over from that writes the device down as its own.
 */
export function isLeftover(device: string): boolean {
  const { backend, owner } = leftoverOf(device);
  return isOfDeadProcess(owner) && readState(device)?.about.backend !== backend;
}

/** As isLeftover, but a process that is just being killed is waited for: it is seen a moment longer than it serves. */
export async function isAbandoned(device: string): Promise<boolean> {
  if (!isLeftover(device) && readState(device) !== undefined) {
    await askStatus(device).catch((error: unknown) => isGone(device, error));
  }
  return isLeftover(device);
}

/** Whether no process answers for a device that a process of ours connected: it was killed, or not to stay. */
export function isWithoutProcess(device: string): boolean {
  return isLeftover(device) || isUnattended(leftoverOf(device).owner);
}

/**
 * Makes room for an attach: takes a leftover down that nothing uses, not even a program that has it open. The users of a
 * remote one may not know that its process is gone, for it still works. Any other device stays as it is.
 *
 * @throws AttachError 'busy'; LaunchedError and DaemonError when it cannot be disconnected
 */
export async function clearLeftover(device: string, onNotice: OnNotice): Promise<void> {
  if (!(await isAbandoned(device))) return;
  requireRoot(`attach /dev/${device}`);
  const left = `/dev/${device} is still attached, though its process is gone`;
  const users = deviceUsers(device);
  if (users.length > 0) throw new AttachError('busy', `${left}, and in use: ${describeUsers(users)}`);
  const [program] = openIn(device);
  if (program !== undefined) {
    throw new AttachError('busy', `${left}, and open in process ${program.pid} (${program.command})`);
  }
  const about = readLastState(device)?.about;
  if (!(await detachLeftover(device, false, onNotice)) && readState(device) !== undefined) {
    throw new AttachError('busy', `/dev/${device} is attached: another process goes on with it`);
  }
  await waitFor(`/dev/${device} to be free`, FREE_LIMIT_MS, () => deviceState(device).pid === undefined);
  dropNodes(device, about);
}

/**
 * Disconnects a device without a process. What was written to it is written to its server, if there is one: a failure is an error while a
 * program still has something to write, and else what can be told of it is told. Answers false, and leaves it alone, where it
 * has a process again by then (revive.ts), or is none of ours any more.
 */
export async function detachLeftover(device: string, force: boolean, onNotice: OnNotice): Promise<boolean> {
  if (!force) {
    const flush = await flushDevice(device, FLUSH_LIMIT_MS);
    if (flush.kind !== 'done') {
      const lost = `what was written last to /dev/${device}, whose process is gone, may be lost (${flush.why})`;
      if (openIn(device).length > 0) {
        throw new AttachError(flush.kind === 'lost' ? 'lost' : 'time-limit', `${lost}; --force detaches it`);
      }
      onNotice(lost);
    }
  }
  return withDeviceLock(device, async () => {
    if (!isWithoutProcess(device)) return false;
    await disconnect(device);
    return true;
  });
}

async function disconnect(device: string): Promise<void> {
  const leftover = leftoverOf(device);
  const { address, tcp = [] } = (readLastState(device)?.about ?? {}) as Partial<DeviceRecord>;
  removeRunFiles(device); // the dead process's: nobody else writes files for a device that carries its mark
  const task = { device, how: 'leftover', leftover } as const;
  try {
    if (tcp.length > 0 && (await isDisconnected(task, STUCK_MS))) return;
    await endTcp(tcp);
    await disconnectInProcess(task, DISCONNECT_LIMIT_MS);
  } catch (error) {
    if (!isLate(error)) throw error;
    throw new AttachError('time-limit', `the kernel does not let go of /dev/${device}: ${howToFree(address)}`, error);
  }
}

/** Answers false when it was late. */
async function isDisconnected(task: DisconnectTask, limitMs: number): Promise<boolean> {
  try {
    await disconnectInProcess(task, limitMs);
    return true;
  } catch (error) {
    if (isLate(error)) return false;
    throw error;
  }
}

/** Of a disconnect in a process of its own. */
export const isLate = (error: unknown) => error instanceof DaemonError && error.code === 'time-limit';

/** Of a device whose server is at `address`, if that is known. Who sends into a full socket holds the lock that a disconnect takes (nbd.c: send_disconnects); only the socket's end ends that. */
export function howToFree(address: DeviceRecord['address']): string {
  const waits = 'it waits for its server, which does not read';
  if (address?.kind !== 'tcp') return `${waits}; end the server, or let it go on`;
  return `${waits}; let it go on, or cut its connection: ss -K dst ${address.host} dport = ${address.port}`;
}

/**
 * The programs that have the device or a partition of it open; but for a sync, which a process of ours may have left behind
 * when it was killed: it waits for what is lost.
 */
function openIn(device: string): readonly FileUser[] {
  return [device, ...deviceState(device).partitions].flatMap((name) => {
    const stat = statSync(`/dev/${name}`, { throwIfNoEntry: false });
    if (stat === undefined) return [];
    return processesWithFileOpen(stat.dev, stat.ino).filter(({ command }) => command !== 'sync');
  });
}
