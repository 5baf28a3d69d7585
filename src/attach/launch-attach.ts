import { launch } from '../daemon/launch.js';
import { launchService, type ServicePlan } from '../daemon/launch-service.js';
import type { AttachEvent, OnAttachEvent } from './attach-event.js';
import type { AttachRequest } from './attach-request.js';
import { donePreparing, prepareServing, servingNodeOptions } from './serving-process.js';

export interface LaunchAttachOptions {
  /** When it is aborted before, that process is told so; one that is ready in that moment detaches. */
  readonly stop?: AbortSignal;
  /** Have systemd start that process. */
  readonly service?: ServicePlan | undefined;
}

/** Attaches in a process of its own, and returns when the device is usable, or with the error and nothing left behind. */
export async function launchAttach(
  request: AttachRequest,
  onEvent: OnAttachEvent,
  { stop, service }: LaunchAttachOptions = {},
): Promise<void> {
  const program = request.kind === 'image' ? './attach-process.js' : './remote-attach-process.js';
  const entry = new URL(program, import.meta.url);
  const hear = (event: unknown) => onEvent(event as AttachEvent);
  const nodeOptions = servingNodeOptions(request);
  if (service !== undefined) return launchService(entry, request, hear, { ...service, nodeOptions }, stop);
  prepareServing();
  const launched = launch(entry, request, hear, { nodeOptions, ...(stop === undefined ? {} : { stop }) });
  donePreparing(); // the process was started in the call
  await launched;
}
