import { readSync } from 'node:fs';
import { ImageError, reasonOf } from './errors.js';
import { foreignFormat, MAGIC_BYTES } from './format-magic.js';
import type { OpenFile } from './open-file.js';

/** The formats that we read and write. */
export const IMAGE_FORMATS = ['raw', 'qcow2'] as const;

export type ImageFormat = (typeof IMAGE_FORMATS)[number];

/**
 * What an image is by its first and last bytes, where nobody says: raw, unless they are another format's.
 *
 * @throws ImageError 'wrong-format' for one that we do not know
 */
export function guessFormat(path: string, { fd, fileBytes }: OpenFile): ImageFormat {
  const head = readPiece(path, fd, 0);
  const tail = fileBytes < MAGIC_BYTES ? new Uint8Array(0) : readPiece(path, fd, fileBytes - MAGIC_BYTES);
  const format = foreignFormat(head, tail);
  if (format === undefined) return 'raw';
  if (format === 'qcow2') return format;
  throw new ImageError(
    'wrong-format',
    `${path} is a ${format} image, and only raw and qcow2 images can be opened; use -f raw if its bytes really are the disk's, or make a qcow2 image of it with: qemu-img convert -O qcow2`,
  );
}

function readPiece(path: string, fd: number, offsetBytes: number): Uint8Array {
  const piece = new Uint8Array(MAGIC_BYTES);
  try {
    return piece.subarray(0, readSync(fd, piece, 0, MAGIC_BYTES, offsetBytes));
  } catch (cause) {
    throw new ImageError('system', `cannot read ${path}: ${reasonOf(cause)}`, { cause });
  }
}
