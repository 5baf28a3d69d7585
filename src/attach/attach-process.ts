import { endWithin } from '../daemon/exit.js';
import { log } from '../daemon/log.js';
import { isService, openReadyChannel } from '../daemon/ready.js';
import { stopOnSignals } from '../daemon/signals.js';
import { exitNow } from '../kernel/fd-calls.js';
import type { AttachEvent } from './attach-event.js';
import type { AttachRequest } from './attach-request.js';
import { attachAndHold } from './hold.js';
import { prepareService } from './serving-process.js';

/** What is left of the process when all is undone gets so long. */
const END_LIMIT_MS = 10_000;

// The process behind an attached device. It hears what to attach from the command that launched it, tells it how that
// goes, and stays until the device ends.
async function answerForDevice(): Promise<void> {
  if (isService()) prepareService();
  const channel = openReadyChannel();
  const request = (await channel.task) as AttachRequest;
  let name = request.device ?? 'a device';
  // What systemd kills at the very end spares a process that is called so: a file system that could not be unmounted needs it.
  if (request.forMounts) process.title = '@tsnbd attach-process.js';
  let attached = false;

  process.on('uncaughtException', (error) => {
    log('err', `${name}: broken: ${error.stack}`);
    exitNow(1); // process.exit() would wait for threads that wait for us
  });

  const onEvent = (event: AttachEvent) => {
    if (!attached) channel.event(event);
    else if (event.kind === 'notice') log('warning', `${name}: ${event.text}`);
  };

  try {
    const end = await attachAndHold(request, {
      onEvent,
      stop: stopOnSignals(channel.abandoned),
      onAttached: async ({ device }) => {
        attached = true;
        name = device;
        await channel.ready();
        log('info', `${name}: attached`);
      },
    });
    if (end === 'left') log('info', `${name}: left to the kernel`);
    else if (end === 'detached') log('info', `${name}: detached`);
    else log('err', `${name}: the connection was lost; the device is gone`);
  } catch (error) {
    if (attached) log('err', `${name}: ${error instanceof Error ? error.message : error}`);
    else await channel.failed(error);
  }
  endWithin(END_LIMIT_MS);
}

void answerForDevice();
