import { launch } from '../daemon/launch.js';
import type { AttachEvent, OnAttachEvent } from './attach-event.js';
import type { AttachRequest } from './attach-request.js';
import { donePreparing, prepareServing } from './serving-process.js';

/**
 * Attaches in a process of its own, and returns when the device is usable, or with the error and nothing left behind. When
 * `stop` is aborted before, that process is told so; one that is ready in that moment detaches.
 */
export async function launchAttach(request: AttachRequest, onEvent: OnAttachEvent, stop?: AbortSignal): Promise<void> {
  const entry = new URL('./attach-process.js', import.meta.url);
  const nodeOptions = prepareServing(request);
  const options = { nodeOptions, ...(stop === undefined ? {} : { stop }) };
  const launched = launch(entry, request, (event) => onEvent(event as AttachEvent), options);
  donePreparing(); // the process was started in the call
  return launched;
}
