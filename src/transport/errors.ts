import { errnoText } from '../kernel/errno.js';

/**
 * - 'unreachable': there is no way to the other side (unknown name, no route, no such socket)
 * - 'refused': it is there and nobody listens; 'closed': it ended the connection or does not read
 * - 'time-limit': it did not answer in time; 'interrupted': we were told to stop meanwhile
 * - 'address': the address cannot be used, or not by us (in use, not allowed, no such folder)
 */
export type TransportErrorCode = 'unreachable' | 'refused' | 'closed' | 'time-limit' | 'interrupted' | 'address';

/** The one error of this room; its message is a sentence for the user. */
export class TransportError extends Error {
  override readonly name = 'TransportError';
  readonly code: TransportErrorCode;

  constructor(code: TransportErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The error for a `deadline` that came while we were `doing` something; it may also have been aborted by hand. */
export function deadlineError(deadline: AbortSignal, doing: string): TransportError {
  const timedOut = deadline.reason instanceof Error && deadline.reason.name === 'TimeoutError';
  return timedOut
    ? new TransportError('time-limit', `cannot ${doing}: no answer within the time limit`)
    : new TransportError('interrupted', `interrupted; did not ${doing}`, { cause: deadline.reason });
}

/** The reason of a failed system call in words: 'connection refused (ECONNREFUSED)'. */
export function reasonInWords(error: unknown): string {
  const { errno, message } = error as NodeJS.ErrnoException;
  return typeof errno === 'number' && errno < 0 ? errnoText(-errno) : message;
}
