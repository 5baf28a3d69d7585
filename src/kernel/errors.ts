import { messageOf } from '../base/message-of.js';
import { errnoText } from './errno.js';

export type KernelErrorCode =
  | 'no-module'
  | 'no-device'
  | 'no-netlink'
  | 'busy'
  | 'not-root'
  | 'refused'
  | 'time-limit'
  | 'system';

/** What the kernel did not do; the message is a sentence for the user and says what to do where something can be done. */
export class KernelError extends Error {
  override readonly name = 'KernelError';
  readonly code: KernelErrorCode;

  constructor(code: KernelErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The error of a call that answered an errno nobody has a better sentence for; `doing` reads behind "cannot". */
export function systemError(doing: string, errno: number): KernelError {
  return new KernelError('system', `cannot ${doing}: ${errnoText(errno)}`);
}

/** The error of a thread that could not make its call (ThreadEnd). */
export function threadError(thread: string, cause: unknown): KernelError {
  const why = messageOf(cause);
  return new KernelError('system', `${thread} failed: ${why}`, { cause });
}

/** What a call answered, unless that is −errno. @throws KernelError 'system' */
export function expect(doing: string, result: number): number {
  if (result < 0) throw systemError(doing, -result);
  return result;
}
