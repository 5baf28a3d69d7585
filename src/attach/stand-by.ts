import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../base/message-of.js';
import { UndoStack } from '../base/undo.js';
import type { ReadyChannel } from '../daemon/ready.js';
import { readLastState, readState } from '../daemon/state-file.js';
import { isHungUp } from '../kernel/socket-calls.js';
import { deviceBackend } from '../kernel/sysfs.js';
import { SpareWorker } from '../server/spare-workers.js';
import type { AttachContext } from './attach-context.js';
import type { Attachment } from './attachment.js';
import { DeadLimit } from './dead-limit.js';
import { takeGiven } from './given-fds.js';
import { failRequests, revive } from './revive.js';
import type { StandBy } from './succession.js';

/** How often the second process looks whether the first is there. */
const LOOK_MS = 200;
const RETRY_MS = 1_000;

/**
 * Waits until the process that serves a device is killed, and goes on with its image. Absent: it has ended as it should, or
 * nobody can. All that is needed for it is ready before: a program may lie on the device.
 */
export async function standBy(
  { device, request }: StandBy,
  channel: ReadyChannel,
  context: AttachContext,
): Promise<Attachment | undefined> {
  const { onEvent, stop } = context;
  const [kernelEnd = -1] = takeGiven(1);
  const backend = deviceBackend(device);
  const spare = new SpareWorker();
  const tell = (text: string) => onEvent({ kind: 'notice', text });
  const { deadTimeoutSeconds = 0 } = request;
  const deadLimit = new DeadLimit(deadTimeoutSeconds, () => failRequests(device), tell);
  await channel.ready();
  for (let told = ''; ; await sleep(LOOK_MS)) {
    // A process that is alive ends the device itself when it lets go of the connection.
    const isServed = !isHungUp(kernelEnd) || readState(device) !== undefined;
    const isOver = stop.aborted || !mayBe(device, backend);
    if (isServed || isOver || readLastState(device)?.about.backend !== backend) {
      deadLimit.end();
      if (isServed && !isOver) continue;
      return undefined;
    }
    deadLimit.begin();
    const attempt = new UndoStack();
    try {
      const attachment = await revive(device, { ...context, undo: attempt }, spare);
      await context.undo.step(
        'go on with the image',
        () => {},
        async () => void (await attempt.undoAll()),
      );
      deadLimit.end();
      return attachment;
    } catch (error) {
      await attempt.undoAll();
      deadLimit.goOn();
      const text = messageOf(error);
      if (text !== told) tell(text);
      told = text;
      await sleep(RETRY_MS);
    }
  }
}

/** Whether a device is the one that carries this mark, as far as that can be told. */
function mayBe(device: string, backend: string | undefined): boolean {
  try {
    return deviceBackend(device) === backend;
  } catch {
    return true; // it is looked at again
  }
}
