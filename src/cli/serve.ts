import { launch } from '../daemon/launch.js';
import { stopOnSignals } from '../daemon/signals.js';
import { EXIT_STATUSES } from './exit-status.js';
import { tellNotice } from './run.js';
import { serveUntilEnd } from './serve-until-end.js';
import type { ServeAction } from './serving-options.js';

/**
 * Serves images until the server is asked to end or its last client leaves, in the foreground as qemu-nbd does, or only until
 * a server in the background listens. Answers the exit status: that of a failure if what a client had written could not be
 * flushed at its end.
 */
export async function serveImages(program: string, action: ServeAction): Promise<number> {
  const say = tellNotice(program);
  if (action.fork) {
    await launch(new URL('./serve-process.js', import.meta.url), action, (text) => say(String(text)));
    return EXIT_STATUSES.done.status;
  }
  const kept = await serveUntilEnd(action, { say, stop: stopOnSignals(), onListening: async () => {} });
  return kept ? EXIT_STATUSES.done.status : EXIT_STATUSES.other.status;
}
