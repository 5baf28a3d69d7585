import { readSync } from 'node:fs';
import { ImageError, reasonOf } from '../errors.js';

/** Reads a table as a whole, while an image is opened. @throws ImageError 'damaged' where the file ends before it does */
export function readAt(path: string, fd: number, offsetBytes: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  try {
    for (let done = 0; done < length; ) {
      const got = readSync(fd, bytes, done, length - done, offsetBytes + done);
      if (got === 0) throw new ImageError('damaged', `${path} is a damaged qcow2 image: it ends within a table`);
      done += got;
    }
  } catch (cause) {
    if (cause instanceof ImageError) throw cause;
    throw new ImageError('system', `cannot read ${path}: ${reasonOf(cause)}`, { cause });
  }
  return bytes;
}
