import type { OnAttachEvent } from '../attach/attach-event.js';
import type { AttachRequest } from '../attach/attach-request.js';
import type { Attachment } from '../attach/attachment.js';
import { AttachError } from '../attach/errors.js';
import { attachAndHold } from '../attach/hold.js';
import { startAnewToServe } from '../attach/serving-process.js';
import { invariant } from '../base/invariant.js';
import { notifyServiceManager } from '../daemon/notify.js';
import { stopOnSignals } from '../daemon/signals.js';
import { hasNetlink } from '../kernel/nbd-device.js';
import { EXIT_STATUSES } from './exit-status.js';

/**
 * Attaches a device that no process is to stay behind, in this one: to start another would take twice the time. Answers false
 * where one must stay, for there is no netlink: nothing has happened then.
 */
export async function attachAndLeave(request: AttachRequest, onEvent: OnAttachEvent): Promise<boolean> {
  if (request.kind !== 'remote' || !(await hasNetlink())) return false;
  const end = await attachAndHold({ ...request, kernelApi: 'netlink' }, { onEvent, stop: stopOnSignals() });
  invariant(end === 'left', 'a device that was set up by netlink stays when its process ends');
  return true;
}

/** Attaches in the foreground, until the device is detached. Answers the exit status. */
export async function attachHere(request: AttachRequest, onEvent: OnAttachEvent): Promise<number> {
  startAnewToServe(request);
  let name = request.device;
  const onAttached = ({ device }: Attachment) => {
    name = device;
    notifyServiceManager('READY=1');
  };
  const stop = stopOnSignals();
  stop.addEventListener('abort', () => notifyServiceManager('STOPPING=1'));
  const end = await attachAndHold(request, { onEvent, stop, onAttached });
  if (end === 'detached') return EXIT_STATUSES.done.status;
  throw new AttachError('lost', `the connection of /dev/${name} was lost; the device is gone`);
}
