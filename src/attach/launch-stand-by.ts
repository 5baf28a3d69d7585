import { launch } from '../daemon/launch.js';
import type { ImageAttachRequest } from './attach-request.js';
import { servingNodeOptions } from './serving-process.js';
import type { StandBy } from './succession.js';

const START_LIMIT_MS = 30_000;

/** Starts the second process of an image (stand-by), which goes on when the one that serves it is killed. */
export async function launchStandBy(device: string, request: ImageAttachRequest, kernelEnd: number): Promise<void> {
  const entry = new URL('./attach-process.js', import.meta.url);
  const task: StandBy = { kind: 'standby', device, request };
  // What keeps this process able to work while memory is short, its children inherit.
  const nodeOptions = servingNodeOptions(request);
  await launch(entry, task, () => {}, { fds: [kernelEnd], limitMs: START_LIMIT_MS, nodeOptions });
}
