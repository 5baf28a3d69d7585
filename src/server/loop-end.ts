import { errnoText } from '../kernel/errno.js';
import type { ServerErrorCode } from './errors.js';

// What the main thread asks of a worker, in a field that the worker looks at once a batch.

/** To serve. */
export const SERVE = 0;
/** To answer what is there, with errors what comes then, and to end. */
export const DRAIN = 1;
/** To end between two requests: somebody else goes on with the socket. */
export const HALT = 2;

/** How the loop ended, as plain data that crosses threads. */
export type LoopEnd =
  | { readonly kind: 'left'; readonly how: 'disconnected' | 'closed' | 'stopped' }
  /** All that was read from the socket is done and answered. `errno` is 0, or why what was written could not be flushed. */
  | { readonly kind: 'left'; readonly how: 'halted'; readonly errno: number }
  | { readonly kind: 'failed'; readonly code: ServerErrorCode; readonly message: string };

export const DISCONNECTED: LoopEnd = { kind: 'left', how: 'disconnected' };
export const CLOSED: LoopEnd = { kind: 'left', how: 'closed' };
export const STOPPED: LoopEnd = { kind: 'left', how: 'stopped' };
export const HALTED: LoopEnd = { kind: 'left', how: 'halted', errno: 0 };
export const GARBAGE = failed('violation', 'the client sent something else where a request should begin');
export const HALF_A_REQUEST = failed('lost', 'the client left in the middle of a request');

export function lost(errno: number): LoopEnd {
  return failed('lost', `the connection was lost: ${errnoText(errno)}`);
}

export function failed(code: ServerErrorCode, message: string): LoopEnd {
  return { kind: 'failed', code, message };
}

/** What a connection's end was, when `errno`, if it is not 0, kept what was written from being flushed. */
export function afterFlush(end: LoopEnd, errno: number): LoopEnd {
  if (errno === 0) return end;
  if (end.kind === 'left' && end.how === 'halted') return { ...end, errno };
  return failed('system', `what the client wrote could not be flushed: ${errnoText(errno)}`);
}
