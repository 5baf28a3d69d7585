import { readState } from '../daemon/state-file.js';
import { type NbdDevice, requireRoot } from '../kernel/nbd-device.js';
import { deviceState, requireDevice } from '../kernel/sysfs.js';
import { AttachError, attachErrorOf } from './errors.js';
import { askOwner } from './owner.js';
import type { Supervisor } from './reconnect.js';

/** To flush, to connect again, and to ask the kernel. */
const OWNER_LIMIT_MS = 120_000;

/** What is behind a device that can get another size. */
export interface Resizing {
  /** How much its server has now. */
  availableBytes(): Promise<number>;
  /** How much of that can be reached by the connection that the device has: what there was when it was made. */
  reachableBytes(): number;
  /** The device has this size from now on. */
  resized(sizeBytes: number): void;
}

export interface NewSize {
  /** Absent: all that the server has. */
  readonly sizeBytes: number | undefined;
  /** The device may become smaller. */
  readonly force: boolean;
}

/** Has the process behind a device give it another size; answers that. */
export async function resizeDevice(device: string, wanted: NewSize): Promise<number> {
  requireDevice(device);
  requireRoot(`resize /dev/${device}`);
  if (readState(device) === undefined) {
    throw new AttachError('refused', `/dev/${device} has no process of ours behind it, which could resize it`);
  }
  const answer = await askOwner(device, { command: 'resize', ...wanted }, OWNER_LIMIT_MS);
  if (answer.ok) return Number(answer.sizeBytes);
  throw attachErrorOf(answer);
}

/**
 * Gives a device that is up, and whose server answers, another size: whole blocks, and no more than there is. `flush` is
 * called before its connection is made again.
 *
 * @throws AttachError 'refused'; what `flush` throws
 */
export async function resize(
  nbd: NbdDevice,
  blockSizeBytes: number,
  wanted: NewSize,
  behind: Resizing | undefined,
  supervisor: Supervisor | undefined,
  flush: () => Promise<void>,
): Promise<number> {
  if (behind === undefined) {
    const image = `/dev/${nbd.name} is an image, which keeps its size while it is attached`;
    throw new AttachError('refused', `${image}: detach it first`);
  }
  const available = await behind.availableBytes();
  const asked = wanted.sizeBytes ?? available;
  const sizeBytes = asked - (asked % blockSizeBytes);
  const device = `/dev/${nbd.name}`;
  if (asked > available) {
    throw new AttachError('refused', `${device} cannot have ${asked} bytes: its server has ${available}`);
  }
  if (sizeBytes === 0) throw new AttachError('refused', `${asked} bytes are less than one block of ${blockSizeBytes}`);
  const now = deviceState(nbd.name).sizeBytes;
  if (sizeBytes < now && !wanted.force) {
    const shrinks = `${device} would shrink from ${now} to ${sizeBytes} bytes`;
    throw new AttachError('refused', `${shrinks}; --force does it, and what lies behind cannot be reached any more`);
  }
  if (sizeBytes > behind.reachableBytes()) await reachMore(nbd.name, behind, supervisor, flush);
  if (sizeBytes !== now) await nbd.resize(sizeBytes);
  behind.resized(sizeBytes);
  return sizeBytes;
}

/** What was written before is flushed: it need not be sent again. */
async function reachMore(
  device: string,
  behind: Resizing,
  supervisor: Supervisor | undefined,
  flush: () => Promise<void>,
): Promise<void> {
  if (supervisor === undefined) {
    const why = `its connection was made when the export had ${behind.reachableBytes()} bytes, and nobody makes another`;
    throw new AttachError('refused', `/dev/${device} cannot grow beyond that: ${why}; detach it, and attach it again`);
  }
  await flush();
  await supervisor.connectAgain();
}
