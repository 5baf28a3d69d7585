/**
 * How mounting or unmounting fails for reasons of its own, apart as mount(8) tells them apart.
 * - 'usage': what was asked for makes no sense, or not from this user
 * - 'system': the system is not fit for it; nothing was touched
 * - 'unreachable': the server does not answer, or there is no such image: what nofail is for
 * - 'interrupted': we were told to stop; all is undone
 * - 'failed': it was tried
 */
export type MountErrorCode = 'usage' | 'system' | 'unreachable' | 'interrupted' | 'failed';

/** What was done is undone when this is told. */
export function interrupted(cause?: unknown): MountError {
  return new MountError('interrupted', 'interrupted; nothing stays mounted or attached', cause);
}

export class MountError extends Error {
  override readonly name = 'MountError';
  readonly code: MountErrorCode;

  constructor(code: MountErrorCode, message: string, cause?: unknown) {
    super(message, { cause });
    this.code = code;
  }
}
