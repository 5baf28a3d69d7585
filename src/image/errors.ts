import { errnoText } from '../kernel/errno.js';

/**
 * Why an image is not opened.
 * - 'missing': there is no such file, or no such snapshot in it; 'not-an-image': nothing that could be one (a folder, a socket, empty, too large)
 * - 'wrong-format': its bytes say that it is of another format
 * - 'damaged': it is of its format, but no program of ours or others wrote it so
 * - 'unsupported': it has, or needs, what we cannot do
 * - 'in-use': another program has it open in a way that does not go with ours
 * - 'read-only': it cannot be written to, and was to be
 * - 'own-device': it lies on the very device that it was to become
 * - 'interrupted': we were told to stop before it was made
 * - 'system': what the system did not do, and why
 */
export type ImageErrorCode =
  | 'missing'
  | 'not-an-image'
  | 'wrong-format'
  | 'damaged'
  | 'unsupported'
  | 'in-use'
  | 'read-only'
  | 'own-device'
  | 'interrupted'
  | 'system';

/** The one error of this room; its message is a sentence for the user. */
export class ImageError extends Error {
  override readonly name = 'ImageError';
  readonly code: ImageErrorCode;

  constructor(code: ImageErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** 'permission denied (EACCES)' of what a call of node:fs threw. */
export function reasonOf(error: unknown): string {
  const { errno } = error as NodeJS.ErrnoException;
  return errno === undefined ? String(error) : errnoText(-errno);
}
