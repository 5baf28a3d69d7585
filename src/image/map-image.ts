import { errnoText } from '../kernel/errno.js';
import type { LookOptions } from './describe-image.js';
import { ImageError } from './errors.js';
import { emptyExtent, type Image } from './image.js';
import { imageFrom, openImage } from './open-image.js';

/** What a map may have of pieces: more would fill the memory. */
const piecesMax = 1_000_000;

/** A piece of an image whose neighbours differ from it. */
export interface ImagePiece {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** No storage is allocated for it. */
  readonly hole: boolean;
  /** It reads as zeroes. */
  readonly zero: boolean;
  /** How many images down it was written: 1 is this one, 0 nowhere. */
  readonly depth: number;
  /** Where in its file it begins; -1: in none, or not as it is. */
  readonly hostBytes: number;
}

export interface ImageMap {
  readonly formatName: string;
  readonly sizeBytes: number;
  readonly pieces: readonly ImagePiece[];
  /** What the user should know besides, a sentence each. */
  readonly notices: readonly string[];
}

/**
 * Tells where the data, zeroes and holes of an image lie, from its first to its last byte. `onProgress` is told how far it is.
 *
 * @throws ImageError
 */
export function mapImage(
  path: string,
  options: LookOptions,
  onProgress: (doneBytes: number, totalBytes: number) => void = () => {},
): ImageMap {
  const opened = openImage(path, { ...options, readOnly: true });
  try {
    const { formatName, sizeBytes, notices } = opened;
    const image = imageFrom(opened.handle);
    try {
      return { formatName, sizeBytes, pieces: piecesOf(path, image, onProgress), notices };
    } finally {
      image.close();
    }
  } finally {
    opened.close();
  }
}

function piecesOf(
  path: string,
  image: Image,
  onProgress: (doneBytes: number, totalBytes: number) => void,
): readonly ImagePiece[] {
  const pieces: ImagePiece[] = [];
  const extent = emptyExtent();
  for (let at = 0; at < image.sizeBytes; at += extent.lengthBytes) {
    const errno = image.status(at, image.sizeBytes - at, extent);
    if (errno !== 0)
      throw new ImageError('system', `cannot tell what lies at byte ${at} of ${path}: ${errnoText(errno)}`);
    const { lengthBytes, hole, zero, depth, hostBytes } = extent;
    const last = pieces.at(-1);
    const joins =
      last !== undefined &&
      last.hole === hole &&
      last.zero === zero &&
      last.depth === depth &&
      hostBytes === (last.hostBytes < 0 ? -1 : last.hostBytes + last.lengthBytes);
    if (joins) pieces[pieces.length - 1] = { ...last, lengthBytes: last.lengthBytes + lengthBytes };
    else pieces.push({ offsetBytes: at, lengthBytes, hole, zero, depth, hostBytes });
    if (pieces.length > piecesMax)
      throw new ImageError('system', `the map of ${path} has more than ${piecesMax} pieces`);
    onProgress(at + lengthBytes, image.sizeBytes);
  }
  return pieces;
}
