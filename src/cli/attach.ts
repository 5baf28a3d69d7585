import type { OnAttachEvent } from '../attach/attach-event.js';
import type { AttachRequest } from '../attach/attach-request.js';
import type { Attachment } from '../attach/attachment.js';
import { EXIT_STATUSES } from './exit-status.js';

/**
 * Attaches in the background, and returns when the device is usable; or in the foreground, until it is detached. Answers
 * the exit status. The rooms below are loaded only where they run: it is the background process that needs them.
 */
export async function attach(request: AttachRequest, foreground: boolean, onEvent: OnAttachEvent): Promise<number> {
  if (!foreground) {
    const { launchAttach } = await import('../attach/launch-attach.js');
    await launchAttach(request, onEvent);
    return EXIT_STATUSES.done.status;
  }
  const { startAnewToServe } = await import('../attach/serving-process.js');
  startAnewToServe(request);
  const { attachAndHold } = await import('../attach/hold.js');
  const { stopOnSignals } = await import('../daemon/signals.js');
  let name = request.device;
  const { notifyServiceManager } = await import('../daemon/notify.js');
  const onAttached = ({ device }: Attachment) => {
    name = device;
    notifyServiceManager('READY=1');
  };
  const stop = stopOnSignals();
  stop.addEventListener('abort', () => notifyServiceManager('STOPPING=1'));
  const end = await attachAndHold(request, { onEvent, stop, onAttached });
  if (end === 'detached') return EXIT_STATUSES.done.status;
  const { AttachError } = await import('../attach/errors.js');
  throw new AttachError('lost', `the connection of /dev/${name} was lost; the device is gone`);
}
