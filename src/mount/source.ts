import { realpathSync, statSync } from 'node:fs';
import type { AttachRequest } from '../attach/attach-request.js';
import type { DeviceRecord } from '../attach/devices.js';
import { MountError } from './errors.js';

/** What is attached, in a request for it and in the record of a device. */
type Source = Partial<Pick<DeviceRecord, 'address' | 'exportName' | 'imagePath'>>;

/** By what mounts of one source lock each other out: what is attached, however it is spelled. */
export function sourceName({ address, exportName = '', imagePath = '' }: Source): string {
  if (address === undefined) return `image ${realPath(imagePath)}`;
  const server = address.kind === 'unix' ? `unix ${realPath(address.path)}` : `tcp ${address.host} ${address.port}`;
  return `${server} ${exportName}`;
}

/** Whether a device is attached to what is asked for. */
export function isOfSource(record: DeviceRecord, request: AttachRequest): boolean {
  if (record.kind !== request.kind) return false;
  if (request.kind === 'remote') return sourceName(record) === sourceName(request);
  const { imagePath = '', temporary = false, snapshot } = record;
  return (
    isSameFile(imagePath, request.imagePath) &&
    temporary === request.temporary &&
    JSON.stringify(snapshot) === JSON.stringify(request.snapshot)
  );
}

/** @throws MountError 'failed' when a device is attached in a way that does not do for this mount */
export function requireFits(device: string, record: DeviceRecord, request: AttachRequest): void {
  if (request.kind === 'remote') return;
  const attached = `${request.imagePath} is attached already, as /dev/${device},`;
  if (record.readOnly === true && !request.readOnly) {
    throw new MountError('failed', `${attached} for reading only: mount all of it with ro, or none`);
  }
  if (request.format !== undefined && record.format !== request.format) {
    throw new MountError('failed', `${attached} as ${record.format}, not as ${request.format}`);
  }
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path; // it does not exist: whoever opens it will say so
  }
}

function isSameFile(a: string, b: string): boolean {
  if (a === b) return true;
  try {
    const [first, second] = [statSync(a), statSync(b)];
    return first.dev === second.dev && first.ino === second.ino;
  } catch {
    return false;
  }
}
