import { type RunState, readLastState, readState } from '../daemon/state-file.js';
import type { DeviceSetup } from '../kernel/nbd-device.js';
import { deviceUsers } from '../kernel/proc.js';
import { attachedDevices, deviceBackend, deviceState, requestCounts, requireDevice } from '../kernel/sysfs.js';
import type { TcpEnds } from '../kernel/tcp-end.js';
import { formatNbdUri, type NbdTarget } from '../transport/uri.js';
import type { ImageAttachRequest } from './attach-request.js';
import { AttachError } from './errors.js';
import type { MadeNode } from './nodes.js';
import { askStatus } from './owner.js';
import type { LinkStatus } from './reconnect.js';

/** What the process behind a device wrote down of it when it was attached (bringUp). */
export interface DeviceRecord {
  readonly kind: 'remote' | 'image';
  /** Of a remote one. */
  readonly address?: NbdTarget['address'];
  readonly exportName?: string;
  /** Of a remote one by TCP: the connections that it has now. */
  readonly tcp?: readonly TcpEnds[];
  /** Of an image. */
  readonly imagePath?: string;
  readonly format?: string;
  readonly readOnly?: boolean;
  /** It is a temporary overlay, or an internal snapshot. */
  readonly temporary?: boolean;
  readonly snapshot?: unknown;
  /** What mounts it shares it, and the last unmount detaches it. */
  readonly forMounts?: true;
  /** What another process needs to go on with it, if this one is killed. */
  readonly served?: ServedRecord;
  /** A sync of the image failed: another opening of it would not know what is lost. */
  isLost?: true;
  readonly kernelApi: 'ioctl' | 'netlink';
  readonly blockSizeBytes: number;
  readonly flags: number;
  readonly connections: number;
  /** As the kernel keeps it; 0 is none. */
  readonly requestTimeoutSeconds: number;
  /** Absent: it ends with its connections. */
  readonly deadTimeoutSeconds?: number;
  readonly attachedAtMs: number;
  /** Since when its process counts writes that failed, where the one before was killed with what it had counted. */
  readonly countedSinceMs?: number;
  /** By netlink: the mark of the device (device-owner.ts). */
  readonly backend?: string;
  /** Our mark where the device carries a user's text instead. */
  readonly owner?: string;
  readonly destroyOnDisconnect?: true;
  /** Its nodes, and its partitions', that were made where nobody else makes them. */
  readonly nodes?: readonly MadeNode[];
}

/** An image as it was attached. */
export interface ServedRecord {
  readonly request: ImageAttachRequest;
  readonly setup: Omit<DeviceSetup, 'sockets'>;
  /** Each of its files: path, and what it is (identityOf). */
  readonly files: readonly (readonly [string, string])[];
}

/** A device that is attached, by us or by another program; what only its owner knows is absent for another's. */
export interface AttachedDevice {
  readonly device: string;
  readonly sizeBytes: number;
  /** 'configured': nobody who could tell more answers. */
  readonly state: LinkStatus['state'] | 'configured';
  readonly readOnly: boolean;
  /** An NBD URI, or the path of an image. */
  readonly source: string | undefined;
  readonly format: string | undefined;
  readonly connections: number | undefined;
  readonly kernelApi: 'ioctl' | 'netlink' | undefined;
  /** Of our process. */
  readonly pid: number | undefined;
  /** Where it and its partitions are mounted. */
  readonly mounts: readonly string[];
  readonly record: DeviceRecord | undefined;
  readonly link: LinkStatus | undefined;
  /** Writes that failed since it was attached, as our server counted them; absent: nobody counts. */
  readonly writeErrors: number | undefined;
  readonly counts: ReturnType<typeof requestCounts>;
}

/** Every device that is attached, in the order of their numbers. None is opened. */
export function listDevices(): Promise<readonly AttachedDevice[]> {
  return Promise.all(attachedDevices().map(lookAt));
}

/** A device that is up by a program of ours. */
export interface RecordedDevice {
  readonly device: string;
  readonly record: DeviceRecord;
  /** Of the process behind it; absent where none is to be, or where it was killed. */
  readonly pid: number | undefined;
}

/** Every device of ours, in the order of their numbers, as it was written down: nobody is asked. */
export function recordedDevices(): readonly RecordedDevice[] {
  return attachedDevices().flatMap((device): RecordedDevice[] => {
    const record = recordOf(device);
    return record === undefined ? [] : [{ device, record, pid: readState(device)?.pid }];
  });
}

/** @throws KernelError 'no-module', 'no-device'; AttachError 'refused' when it is not attached */
export function describeDevice(device: string): Promise<AttachedDevice> {
  requireDevice(device);
  if (!attachedDevices().includes(device)) throw new AttachError('refused', `/dev/${device} is not attached`);
  return lookAt(device);
}

async function lookAt(device: string): Promise<AttachedDevice> {
  const { sizeBytes, readOnly } = deviceState(device);
  const state = readState(device);
  const record = recordOf(device);
  // It may end just now, not answer, or we may not ask.
  const answer = state === undefined ? undefined : await askStatus(device).catch(() => undefined);
  const link = answer?.link as LinkStatus | undefined;
  return {
    device: `/dev/${device}`,
    sizeBytes,
    state: link?.state ?? (answer === undefined ? 'configured' : 'connected'),
    readOnly,
    source: record === undefined ? undefined : sourceOf(record),
    format: record?.format,
    connections: record?.connections,
    // By ioctl there is none; and another program's by netlink may have none either.
    kernelApi: record?.kernelApi ?? (deviceBackend(device) === undefined ? undefined : 'netlink'),
    pid: state?.pid,
    mounts: deviceUsers(device).flatMap((user) => (user.kind === 'mount' ? [user.mountPoint] : [])),
    record,
    link,
    writeErrors: answer?.writeErrors as number | undefined,
    counts: requestCounts(device),
  };
}

/** What was written down of a device of ours: by its process, or one that is gone, if it is still the same device. */
export function recordOf(device: string): DeviceRecord | undefined {
  return (readState(device)?.about ?? recordLeft(device)) as DeviceRecord | undefined;
}

function recordLeft(device: string): RunState['about'] | undefined {
  const about = readLastState(device)?.about;
  const backend = deviceBackend(device);
  return backend !== undefined && about?.backend === backend ? about : undefined;
}

function sourceOf({ address, exportName = '', imagePath }: DeviceRecord): string | undefined {
  return address === undefined ? imagePath : formatNbdUri({ address, exportName });
}
