import { constants } from 'node:os';
import { errnoText } from '../kernel/errno.js';

/**
 * Why an image is not opened.
 * - 'missing'; 'not-an-image': a folder, empty, a device that is no disk; 'read-only': it may not be written
 * - 'wrong-format': it begins like another format; 'in-use': somebody else has it open
 * - 'own-device': it lies on the device that it would serve
 */
export type ImageErrorCode =
  | 'missing'
  | 'not-an-image'
  | 'read-only'
  | 'wrong-format'
  | 'in-use'
  | 'own-device'
  | 'system';

export class ImageError extends Error {
  override readonly name = 'ImageError';
  readonly code: ImageErrorCode;

  constructor(code: ImageErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The positive errno of what a call of node:fs threw; EIO where there is none. */
export function errnoOf(error: unknown): number {
  const { errno } = error as NodeJS.ErrnoException;
  return typeof errno === 'number' && errno < 0 ? -errno : constants.errno.EIO;
}

/** 'permission denied (EACCES)' of what a call of node:fs threw. */
export function reasonOf(error: unknown): string {
  return errnoText(errnoOf(error));
}
