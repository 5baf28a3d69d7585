import { attachAndHold } from '../attach/attach.js';
import type { OnAttachEvent } from '../attach/attach-event.js';
import type { AttachRequest } from '../attach/attach-request.js';
import type { Attachment } from '../attach/attachment.js';
import { AttachError } from '../attach/errors.js';
import { startAnewToServe } from '../attach/serving-process.js';
import { notifyServiceManager } from '../daemon/notify.js';
import { stopOnSignals } from '../daemon/signals.js';
import { EXIT_STATUSES } from './exit-status.js';

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
