import { messageOf } from '../base/message-of.js';
import { endWithin } from '../daemon/exit.js';
import { log } from '../daemon/log.js';
import { isService, openReadyChannel, type ReadyChannel } from '../daemon/ready.js';
import { stopOnSignals } from '../daemon/signals.js';
import { exitNow } from '../kernel/fd-calls.js';
import type { AttachContext } from './attach-context.js';
import type { AttachEvent } from './attach-event.js';
import type { AttachRequest } from './attach-request.js';
import type { Attachment } from './attachment.js';
import { hold } from './hold.js';
import { prepareService } from './serving-process.js';
import type { Revival, StandBy, Succession } from './succession.js';

/** What is left of the process when all is undone gets so long. */
const END_LIMIT_MS = 10_000;

/** What such a process is started for. */
export type Task = AttachRequest | Succession | Revival | StandBy;

/** How a process has come to its device. */
const BEGUN: Readonly<Record<Task['kind'], string>> = {
  image: 'attached',
  remote: 'attached',
  succession: 'taken over from another process',
  revival: 'taken over from a process that was killed',
  standby: 'taken over from a process that was killed',
};

function requestOf(task: Task): AttachRequest {
  return 'request' in task ? task.request : task;
}

/** Makes the device ours; or does not, which is no failure. */
export type Begin<T extends Task> = (
  task: T,
  channel: ReadyChannel,
  context: AttachContext,
) => Promise<Attachment | undefined>;

/**
 * The life of a process behind an attached device. It hears what to attach from the command that launched it, tells it how that
 * goes, and stays until the device ends.
 */
export async function answerForDevice<T extends Task>(begin: Begin<T>): Promise<void> {
  if (isService()) prepareService();
  const channel = openReadyChannel();
  const task = (await channel.task) as T;
  let name = task.device ?? 'a device';
  // What systemd kills at the very end spares a process that is called so: a file system that could not be unmounted needs it.
  if (requestOf(task).forMounts) process.title = '@tsnbd attach-process.js';
  let attached = false;

  process.on('uncaughtException', (error) => {
    log('err', `${name}: broken: ${error.stack}`);
    exitNow(1); // process.exit() would wait for threads that wait for us
  });

  const onEvent = (event: AttachEvent) => {
    if (channel.isListening()) channel.event(event);
    else if (event.kind === 'notice') log('warning', `${name}: ${event.text}`);
  };

  try {
    const end = await hold(requestOf(task), (context) => begin(task, channel, context), {
      onEvent,
      // Who takes over knows best what becomes of the device when the other one is gone.
      stop: stopOnSignals(task.kind === 'succession' ? undefined : channel.abandoned),
      inBackground: true,
      onAttached: async ({ device }) => {
        attached = true;
        name = device;
        await channel.ready();
        log('info', `${name}: ${BEGUN[task.kind]}`);
      },
    });
    if (end === 'handed over') {
      log('info', `${name}: handed over to another process`);
      exitNow(0); // all that it has is that one's, too
    }
    if (end === 'left') log('info', `${name}: left to ${task.kind === 'standby' ? 'nobody' : 'the kernel'}`);
    else if (end === 'detached') log('info', `${name}: detached`);
    else log('err', `${name}: the connection was lost; the device is gone`);
  } catch (error) {
    if (attached) log('err', `${name}: ${messageOf(error)}`);
    else await channel.failed(error);
  }
  endWithin(END_LIMIT_MS);
}
