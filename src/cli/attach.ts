import type { OnAttachEvent } from '../attach/attach-event.js';
import type { AttachRequest } from '../attach/attach-request.js';
import { EXIT_STATUSES } from './exit-status.js';

/**
 * Attaches in the background, and returns when the device is usable; or in the foreground, until it is detached. Answers
 * the exit status. What attaches is loaded only where it runs: it is the background process that needs it.
 */
export async function attach(request: AttachRequest, foreground: boolean, onEvent: OnAttachEvent): Promise<number> {
  if (!foreground) {
    if (request.kind === 'remote' && request.unattended) {
      const { attachAndLeave } = await import('./attach-here.js');
      if (await attachAndLeave(request, onEvent)) return EXIT_STATUSES.done.status;
    }
    const { launchAttach } = await import('../attach/launch-attach.js');
    await launchAttach(request, onEvent);
    return EXIT_STATUSES.done.status;
  }
  const { attachHere } = await import('./attach-here.js');
  return attachHere(request, onEvent);
}
