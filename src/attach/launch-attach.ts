import { launch } from '../daemon/launch.js';
import type { AttachEvent, OnAttachEvent } from './attach-event.js';
import type { AttachRequest } from './attach-request.js';
import { prepareServing } from './serving-process.js';

/** Attaches in a process of its own, and returns when the device is usable, or with the error and nothing left behind. */
export async function launchAttach(request: AttachRequest, onEvent: OnAttachEvent): Promise<void> {
  const entry = new URL('./attach-process.js', import.meta.url);
  const nodeOptions = prepareServing(request);
  return launch(entry, request, (event) => onEvent(event as AttachEvent), { nodeOptions });
}
