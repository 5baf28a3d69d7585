import { existsSync } from 'node:fs';
import type { OnAttachEvent } from '../attach/attach-event.js';
import type { AttachRequest } from '../attach/attach-request.js';
import { recordedDevices } from '../attach/devices.js';
import { launchAttach } from '../attach/launch-attach.js';
import { clearLeftover, isAbandoned } from '../attach/leftover.js';
import { messageOf } from '../base/message-of.js';
import { isUnderSystemd, type ServicePlan } from '../daemon/launch-service.js';
import { escapedPath, mountUnit } from '../daemon/unit-name.js';
import { attachedDevices, nbdDevices } from '../kernel/sysfs.js';
import { interrupted, MountError } from './errors.js';
import { isOfSource, requireFits } from './source.js';

/** What an attach tells, and what ends it. */
export interface AttachingContext {
  readonly onEvent: OnAttachEvent;
  readonly stop: AbortSignal;
}

/** The device that a mount uses. */
export interface SourceDevice {
  readonly device: string;
  /** It was attached for this mount: if that fails, it is detached again. */
  readonly isNew: boolean;
}

/**
 * The device of a source: the one that is attached to it already, or a new one. The caller has the lock of the source.
 *
 * @throws whatever an attach does; MountError 'failed' when the device there does not do
 */
export async function deviceOf(
  request: AttachRequest,
  folder: string,
  { onEvent, stop }: AttachingContext,
): Promise<SourceDevice> {
  const notice = (text: string) => onEvent({ kind: 'notice', text });
  for (const { device, record } of recordedDevices()) {
    if (!isOfSource(record, request)) continue;
    if (!(await isAbandoned(device))) {
      requireFits(device, record, request);
      if (request.device !== undefined && request.device !== device) {
        notice(`it is attached already, as /dev/${device}, not as /dev/${request.device}`);
      }
      return { device, isNew: false };
    }
    // Its process was killed: nothing may be mounted from it any more, and with a new one beside it there would be two.
    await clearLeftover(device, notice);
  }
  return { device: await attachFree(request, planOf(folder), { onEvent, stop }), isNew: true };
}

/** On the device that is asked for, one that the kernel chooses, or the first that is free. */
async function attachFree(
  request: AttachRequest,
  service: ServicePlan | undefined,
  { onEvent, stop }: AttachingContext,
): Promise<string> {
  const attach = async (device: string | undefined): Promise<string> => {
    let name = device;
    let step = '';
    const hear: OnAttachEvent = (event) => {
      if (event.kind === 'attached') name = event.device;
      if (event.kind === 'step') step = event.step;
      onEvent(event);
    };
    try {
      await launchAttach({ ...request, device }, hear, { service, stop });
    } catch (error) {
      if (stop.aborted) throw interrupted(error);
      if (!isUnreachable(request, step, codeOf(error))) throw error;
      const why = messageOf(error);
      throw new MountError('unreachable', why, error);
    }
    return name ?? '';
  };
  if (request.device !== undefined) return attach(request.device);
  try {
    return await attach(undefined);
  } catch (error) {
    if (codeOf(error) !== 'no-netlink') throw error;
    return firstFree(attach, error);
  }
}

/** Whether what failed in that step is that the source is not there. */
function isUnreachable(request: AttachRequest, step: string, code: unknown): boolean {
  if (request.kind === 'image') return code === 'missing' && !existsSync(request.imagePath);
  if (step === 'connect to the server') return code !== 'interrupted' && code !== 'address';
  return step === 'negotiate' && (code === 'time-limit' || code === 'closed');
}

/** By ioctl nobody chooses: somebody else may be faster than we are, but only for a device that we only tried. */
async function firstFree(attach: (device: string) => Promise<string>, none: unknown): Promise<string> {
  const taken = new Set(attachedDevices());
  let failure = none;
  for (const device of nbdDevices().filter((each) => !taken.has(each))) {
    try {
      return await attach(device);
    } catch (error) {
      if (codeOf(error) !== 'busy') throw error;
      failure = error;
    }
  }
  throw failure;
}

/** Under systemd a service of its own: whatever is left in the group of a mount unit is killed with it. */
function planOf(folder: string): ServicePlan | undefined {
  if (!isUnderSystemd()) return undefined;
  return {
    unit: `tsnbd-${escapedPath(folder)}-${process.pid}.service`,
    description: `Network block device of ${folder}`,
    before: [mountUnit(folder)],
  };
}

function codeOf(error: unknown): unknown {
  return (error as { code?: unknown }).code;
}
