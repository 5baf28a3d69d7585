import type { AttachContext } from '../attach/attach-context.js';
import type { OnAttachEvent } from '../attach/attach-event.js';
import type { RemoteAttachRequest } from '../attach/attach-request.js';
import { hold, unlessStopped } from '../attach/hold.js';
import { attachRemote } from '../attach/remote.js';
import { invariant } from '../base/invariant.js';
import { stopOnSignals } from '../daemon/signals.js';
import { hasNetlink } from '../kernel/nbd-device.js';

/**
 * Attaches a device that no process is to stay behind, in this one: to start another would take twice the time. Answers false
 * where one must stay, for there is no netlink: nothing has happened then.
 */
export async function attachAndLeave(request: RemoteAttachRequest, onEvent: OnAttachEvent): Promise<boolean> {
  if (!(await hasNetlink())) return false;
  const byNetlink: RemoteAttachRequest = { ...request, kernelApi: 'netlink' };
  const begin = (context: AttachContext) => unlessStopped(() => attachRemote(byNetlink, context), context);
  const end = await hold(byNetlink, begin, { onEvent, stop: stopOnSignals() });
  invariant(end === 'left', 'a device that was set up by netlink stays when its process ends');
  return true;
}
