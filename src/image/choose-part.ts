import { errnoText } from '../kernel/errno.js';
import { ImageError } from './errors.js';
import type { Image } from './image.js';
import type { ImagePart } from './part.js';
import { findPartition } from './partition-table.js';

/** What of an image's disk is shown: all behind an offset, or a partition as Linux counts it. */
export type PartChoice =
  | { readonly kind: 'offset'; readonly offsetBytes: number }
  | { readonly kind: 'partition'; readonly number: number };

/** Clients see whole sectors only. */
const SECTOR_BYTES = 512;

/**
 * Where that part lies. The image is only read; it stays the caller's.
 *
 * @throws ImageError 'missing', 'damaged', 'not-an-image', 'system'
 */
export function choosePart(path: string, image: Image, choice: PartChoice): ImagePart {
  if (choice.kind === 'offset') {
    const { offsetBytes } = choice;
    if (offsetBytes < image.sizeBytes) return { offsetBytes, sizeBytes: image.sizeBytes - offsetBytes };
    throw new ImageError('not-an-image', `${path} has ${image.sizeBytes} bytes: nothing is behind ${offsetBytes}`);
  }
  const bytes = (offsetBytes: number, length: number) => {
    const target = Buffer.alloc(length);
    const errno = image.read(offsetBytes, length, target, 0);
    if (errno === 0) return target;
    throw new ImageError('system', `${path}: the partition table cannot be read: ${errnoText(errno)}`);
  };
  try {
    const part = findPartition({ sizeBytes: image.sizeBytes, bytes }, choice.number);
    if (part.sizeBytes % SECTOR_BYTES === 0) return part;
    throw new ImageError('damaged', `its partition ${choice.number} does not end with a sector`);
  } catch (error) {
    if (!(error instanceof ImageError) || error.code === 'system') throw error;
    throw new ImageError(error.code, `${path}: ${error.message}`);
  }
}
