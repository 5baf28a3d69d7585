import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { messageOf } from '../base/message-of.js';
import { ImageError, reasonOf } from '../image/errors.js';
import { type OpenedImage, openImage } from '../image/open-image.js';
import { tellOfTrouble } from '../image/trouble.js';
import { loadLibc } from '../kernel/libc.js';
import { messageInWords } from '../protocol/handshake-message.js';
import { exportInWords } from '../protocol/option-error.js';
import { ServerError } from '../server/errors.js';
import type { ServedExport } from '../server/exports.js';
import { serve } from '../server/serve.js';
import type { ServeEvent } from '../server/serve-event.js';
import type { Verbosity } from './parse.js';
import type { ServeAction } from './serving-options.js';

export interface Serving {
  /** Told what the user should know, a sentence each. */
  readonly say: (text: string) => void;
  readonly stop: AbortSignal;
  /** Clients can connect. */
  readonly onListening: () => Promise<void>;
}

/** Serves images until the last client leaves or `stop` is aborted. Answers whether all that was written could be flushed. */
export async function serveUntilEnd(action: ServeAction, { say, stop, onListening }: Serving): Promise<boolean> {
  const { address, settings, clientsMax, persistent, handshakeLimitMs, pidFile, verbosity } = action;
  loadLibc();
  const exports: ServedExport[] = [];
  let hasLostWrites = false;
  try {
    for (const { name, description, imagePath } of action.exports) {
      const image = openImage(imagePath, settings);
      exports.push({ name, description, image });
      for (const notice of image.notices) say(notice);
      tellOfTrouble(imagePath, image, say);
    }
    const server = await serve({ address, exports, clientsMax, persistent, handshakeLimitMs }, (event) => {
      hasLostWrites ||= tellsOfLostWrites(event);
      const text = eventText(event, verbosity);
      if (text !== undefined) say(text);
    });
    try {
      if (pidFile !== undefined) writePid(pidFile);
      if (stop.aborted) await server.stop();
      stop.addEventListener('abort', () => void server.stop(), { once: true });
      await onListening();
      await server.ended;
    } finally {
      await server.stop();
      if (pidFile !== undefined) removePid(pidFile);
    }
  } finally {
    for (const { image } of exports) if (!closeOrTell(image, say)) hasLostWrites = true;
  }
  return !hasLostWrites;
}

/** One that cannot be written any more keeps no other from its end. Answers whether all was written. */
function closeOrTell(image: OpenedImage, say: Serving['say']): boolean {
  try {
    image.close();
    return true;
  } catch (error) {
    say(messageOf(error));
    return false;
  }
}

const PID = `${process.pid}\n`;

function writePid(path: string): void {
  try {
    writeFileSync(path, PID, { mode: 0o600 });
  } catch (error) {
    throw new ImageError('system', `the process id cannot be written to ${path}: ${reasonOf(error)}`);
  }
}

/** Another server may have written its own since. */
function removePid(path: string): void {
  try {
    if (readFileSync(path, 'latin1') === PID) rmSync(path);
  } catch {
    // It is gone, which is what was wanted.
  }
}

const STYLES = { simple: 'simple replies', structured: 'structured replies', extended: 'extended headers' } as const;

function tellsOfLostWrites(event: ServeEvent): boolean {
  return event.kind === 'ended' && event.end.kind === 'failed' && event.end.error.code === 'system';
}

/** Trouble is told always, the coming and going of clients, and what they negotiate, only if the user wants to know. */
function eventText(event: ServeEvent, { verbose, debug }: Verbosity): string | undefined {
  switch (event.kind) {
    case 'message':
      return debug ? `client ${event.client}: ${messageInWords(event.message, 'server')}` : undefined;
    case 'connected':
      return verbose
        ? `client ${event.client} connected from ${event.from}, to ${exportInWords(event.exportName)} (${STYLES[event.replyStyle]})`
        : undefined;
    case 'ended':
      if (event.end.kind === 'failed') return `client ${event.client}: ${event.end.error.message}`;
      return verbose ? `client ${event.client} left (${event.end.how})` : undefined;
    case 'not-served':
      return verbose || (event.error instanceof ServerError && event.error.code === 'system')
        ? `client ${event.client} from ${event.from} was not served: ${event.error.message}`
        : undefined;
    case 'dropped':
      return 'a connection was dropped: too many at once';
    case 'stuck':
      return `${event.clients} of the clients' workers did not end in time; what they did not answer is not done`;
  }
}
