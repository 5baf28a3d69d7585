import { errnoText } from '../kernel/errno.js';
import type { ServerErrorCode } from './errors.js';

/** How the loop ended, as plain data that crosses threads. */
export type LoopEnd =
  | { readonly kind: 'left'; readonly how: 'disconnected' | 'closed' | 'stopped' }
  | { readonly kind: 'failed'; readonly code: ServerErrorCode; readonly message: string };

export const DISCONNECTED: LoopEnd = { kind: 'left', how: 'disconnected' };
export const CLOSED: LoopEnd = { kind: 'left', how: 'closed' };
export const STOPPED: LoopEnd = { kind: 'left', how: 'stopped' };
export const GARBAGE = failed('violation', 'the client sent something else where a request should begin');
export const HALF_A_REQUEST = failed('lost', 'the client left in the middle of a request');

export function lost(errno: number): LoopEnd {
  return failed('lost', `the connection was lost: ${errnoText(errno)}`);
}

export function failed(code: ServerErrorCode, message: string): LoopEnd {
  return { kind: 'failed', code, message };
}
