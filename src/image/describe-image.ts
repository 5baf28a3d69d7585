import { statSync } from 'node:fs';
import { ImageError, reasonOf } from './errors.js';
import { type OpenOptions, openImage } from './open-image.js';

/** How an image is looked at. */
export type LookOptions = Pick<OpenOptions, 'format' | 'forceShare'>;

/** What there is to say of an image; what only one format has is absent in others. */
export interface ImageDescription {
  readonly path: string;
  readonly formatName: string;
  /** What clients see. */
  readonly virtualSizeBytes: number;
  /** The storage that its file takes; 0 of a device. */
  readonly allocatedBytes: number;
  /** It was not closed in order, and has to be looked through before it is written to. */
  readonly isDirty: boolean;
  /** What the user should know besides, a sentence each. */
  readonly notices: readonly string[];
}

const blockBytes = 512;

/** Opens an image for reading, tells what it is, and closes it. @throws ImageError */
export function describeImage(path: string, options: LookOptions): ImageDescription {
  const image = openImage(path, { ...options, readOnly: true });
  try {
    const { formatName, sizeBytes, notices } = image;
    const known = { path, formatName, virtualSizeBytes: sizeBytes, notices };
    return { ...known, allocatedBytes: allocatedBytes(path), isDirty: false };
  } finally {
    image.close();
  }
}

function allocatedBytes(path: string): number {
  try {
    return statSync(path).blocks * blockBytes;
  } catch (cause) {
    throw new ImageError('system', `cannot look at ${path}: ${reasonOf(cause)}`, { cause });
  }
}
