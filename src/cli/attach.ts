import type { AttachEvent, OnAttachEvent } from '../attach/attach-event.js';
import type { AttachRequest } from '../attach/attach-request.js';
import { AttachError } from '../attach/errors.js';
import { stopOnSignals } from '../daemon/signals.js';
import { exitNow } from '../kernel/fd-calls.js';
import { EXIT_STATUSES } from './exit-status.js';
import { flushed } from './run.js';

/**
 * Attaches in the background, and returns when the device is usable; or in the foreground, until it is detached. Answers
 * the exit status. What attaches is loaded only where it runs: it is the background process that needs it.
 */
export async function attach(request: AttachRequest, foreground: boolean, onEvent: OnAttachEvent): Promise<number> {
  if (!foreground) {
    if (!(await isLeft(request, onEvent))) await attachInBackground(request, onEvent);
    await flushed(process.stdout);
    exitNow(EXIT_STATUSES.done.status); // Node's own end hears no signal: one would be the status of an attach that is done
  }
  const { attachHere } = await import('./attach-here.js');
  return attachHere(request, onEvent);
}

/** Answers false, and has done nothing, where a process is to stay behind the device. */
async function isLeft(request: AttachRequest, onEvent: OnAttachEvent): Promise<boolean> {
  if (request.kind !== 'remote' || !request.unattended) return false;
  const { attachAndLeave } = await import('./attach-and-leave.js');
  return attachAndLeave(request, onEvent);
}

/**
 * A signal is passed on, and the answer waited for: a command that just ended could leave a device behind that is ready in that
 * moment, and say that it was interrupted.
 */
async function attachInBackground(request: AttachRequest, onEvent: OnAttachEvent): Promise<void> {
  const { launchAttach } = await import('../attach/launch-attach.js');
  let device: string | undefined;
  const hear = (event: AttachEvent) => {
    if (event.kind === 'attached') device = event.device;
    onEvent(event);
  };
  const stop = stopOnSignals();
  try {
    await launchAttach(request, hear, { stop });
  } catch (error) {
    throw stop.aborted ? interrupted(error) : error;
  }
  if (!stop.aborted) return;
  const { detachDevice } = await import('../attach/detach.js');
  if (device !== undefined) await detachDevice(device, false, (text) => onEvent({ kind: 'notice', text }));
  throw interrupted();
}

function interrupted(cause?: unknown): AttachError {
  return new AttachError('interrupted', 'interrupted; nothing stays attached', cause);
}
