import { messageOf } from '../base/message-of.js';
import { endWithin } from '../daemon/exit.js';
import { log } from '../daemon/log.js';
import { openReadyChannel } from '../daemon/ready.js';
import { stopOnSignals } from '../daemon/signals.js';
import { exitNow } from '../kernel/fd-calls.js';
import { serveUntilEnd } from './serve-until-end.js';
import type { ServeAction } from './serving-options.js';

/** What is left of the process when all is closed gets so long. */
const END_LIMIT_MS = 10_000;

// A server in the background. It hears what to serve from the command that launched it, tells it when it listens, and stays
// until its last client leaves or it is asked to end.
async function serveInBackground(): Promise<void> {
  const channel = openReadyChannel();
  const action = (await channel.task) as ServeAction;
  let isListening = false;
  process.on('uncaughtException', (error) => {
    log('err', `serving: broken: ${error.stack}`);
    exitNow(1);
  });
  try {
    const kept = await serveUntilEnd(action, {
      say: (text) => (isListening ? log('warning', `serving: ${text}`) : channel.event(text)),
      stop: stopOnSignals(channel.abandoned),
      onListening: async () => {
        isListening = true;
        await channel.ready();
      },
    });
    process.exitCode = kept ? 0 : 1;
  } catch (error) {
    process.exitCode = 1;
    if (isListening) log('err', `serving: ${messageOf(error)}`);
    else await channel.failed(error);
  }
  endWithin(END_LIMIT_MS);
}

void serveInBackground();
