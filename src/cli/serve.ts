import { stopOnSignals } from '../daemon/signals.js';
import { openImage } from '../image/open-image.js';
import { loadLibc } from '../kernel/libc.js';
import { exportInWords } from '../protocol/option-error.js';
import type { ServedExport } from '../server/exports.js';
import { serve } from '../server/serve.js';
import type { ServeEvent } from '../server/serve-event.js';
import { EXIT_STATUSES } from './exit-status.js';
import type { ServeAction } from './serving-options.js';

/**
 * Serves images in the foreground, as qemu-nbd does, until it is asked to end or its last client leaves. Answers the exit
 * status: that of a failure if what a client had written could not be flushed at its end.
 */
export async function serveImages(program: string, action: ServeAction): Promise<number> {
  const { address, settings, clientsMax, persistent, handshakeLimitMs, verbosity } = action;
  const say = (text: string) => process.stderr.write(`${program}: ${text}\n`);
  const stop = stopOnSignals();
  loadLibc();
  const exports: ServedExport[] = [];
  let hasLostWrites = false;
  try {
    for (const { name, description, imagePath } of action.exports) {
      const image = openImage(imagePath, settings);
      exports.push({ name, description, image });
      for (const notice of image.notices) say(notice);
    }
    const server = await serve({ address, exports, clientsMax, persistent, handshakeLimitMs }, (event) => {
      hasLostWrites ||= tellsOfLostWrites(event);
      const text = eventText(event, verbosity.verbose);
      if (text !== undefined) say(text);
    });
    if (stop.aborted) await server.stop();
    stop.addEventListener('abort', () => void server.stop(), { once: true });
    await server.ended;
  } finally {
    for (const { image } of exports) image.close();
  }
  return hasLostWrites ? EXIT_STATUSES.other.status : EXIT_STATUSES.done.status;
}

const STYLES = { simple: 'simple replies', structured: 'structured replies', extended: 'extended headers' } as const;

function tellsOfLostWrites(event: ServeEvent): boolean {
  return event.kind === 'ended' && event.end.kind === 'failed' && event.end.error.code === 'system';
}

/** Trouble is told always, the coming and going of clients only if the user wants to know. */
function eventText(event: ServeEvent, verbose: boolean): string | undefined {
  switch (event.kind) {
    case 'connected':
      return verbose
        ? `client ${event.client} connected from ${event.from}, to ${exportInWords(event.exportName)} (${STYLES[event.replyStyle]})`
        : undefined;
    case 'ended':
      if (event.end.kind === 'failed') return `client ${event.client}: ${event.end.error.message}`;
      return verbose ? `client ${event.client} left (${event.end.how})` : undefined;
    case 'not-served':
      return verbose ? `client ${event.client} from ${event.from} was not served: ${event.error.message}` : undefined;
    case 'dropped':
      return 'a connection was dropped: too many at once';
    case 'stuck':
      return `${event.clients} of the clients' workers did not end in time; what they did not answer is not done`;
  }
}
