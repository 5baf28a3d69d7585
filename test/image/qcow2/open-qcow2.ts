import { invariant } from '#tsnbd/base/invariant.js';
import { ImageError } from '#tsnbd/image/errors.js';
import type { Image } from '#tsnbd/image/image.js';
import { type ImageHandle, imageFrom, type OpenedImage, openImage } from '#tsnbd/image/open-image.js';
import { newCacheMemory } from '#tsnbd/image/qcow2/slice-cache.js';

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

/** An image that is written to, with room for so many slices of its L2 tables in memory, and as many of refcounts. */
export function withFewSlices(handle: ImageHandle, slots: number) {
  invariant(handle.format === 'qcow2' && handle.memory.write !== undefined, 'it is a qcow2 image that is written to');
  const { geometry, memory } = handle;
  const { slices, sliceBytes } = geometry;
  const l2 = newCacheMemory(slices, sliceBytes, slots * sliceBytes);
  const refcounts = newCacheMemory(Number.MAX_SAFE_INTEGER, sliceBytes, slots * sliceBytes);
  return { ...handle, memory: { ...memory, l2, write: { ...handle.memory.write, refcounts } } };
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
