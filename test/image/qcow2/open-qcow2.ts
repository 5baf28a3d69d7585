import { ImageError } from '#tsnbd/image/errors.js';
import type { Image } from '#tsnbd/image/image.js';
import { imageFrom, type OpenedImage, openImage } from '#tsnbd/image/open-image.js';

/** Opens an image for reading, and hands it over with what a worker has of it. */
export function withImage<T>(path: string, act: (image: Image, opened: OpenedImage) => T): T {
  const opened = openImage(path, { readOnly: true });
  try {
    const image = imageFrom(structuredClone(opened.handle));
    try {
      return act(image, opened);
    } finally {
      image.close();
    }
  } finally {
    opened.close();
  }
}

/** All bytes of a disk, read in pieces; throws an errno. */
export function readAll(image: Image, pieceBytes = 1 << 20): Buffer {
  const all = Buffer.alloc(image.sizeBytes, 0xee);
  for (let at = 0; at < all.length; at += pieceBytes) {
    const errno = image.read(at, Math.min(pieceBytes, all.length - at), all, at);
    if (errno !== 0) throw new Error(`errno ${errno} at ${at}`);
  }
  return all;
}

export function refusal(path: string): ImageError {
  try {
    openImage(path, { readOnly: true }).close();
  } catch (error) {
    if (error instanceof ImageError) return error;
    throw error;
  }
  throw new Error(`${path} was opened`);
}
