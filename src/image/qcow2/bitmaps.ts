import { CursorError, ReadCursor } from '../../base/cursor.js';
import { ImageError } from '../errors.js';
import { AUTOCLEAR_BITMAPS } from './features.js';
import type { Header } from './header.js';
import { readAt } from './read-at.js';

const IN_USE = 1;
const AUTO = 2;
const COUNT_MAX = 65_535;
/** QEMU's limit: so many entries, each with the longest name. */
const DIRECTORY_BYTES_MAX = COUNT_MAX * (24 + 1_023);
const GRANULARITY_BITS_MAX = 31;
const ALIGNMENT_BYTES = 8;
/** QEMU's limit of what one bitmap takes. */
const BITMAP_BYTES_MAX = 512 << 20;

/** A persistent dirty bitmap (qcow2.rst, 'Bitmap directory entry'). */
export interface Bitmap {
  readonly name: string;
  readonly granularityBytes: number;
  /** Whoever opened it for writing has not closed it: what it says may be wrong. */
  readonly isInUse: boolean;
  /** Whoever writes to the image maintains it. */
  readonly isAuto: boolean;
  readonly tableOffsetBytes: bigint;
  readonly tableEntries: number;
}

/** The bitmaps of an image, none where their autoclear bit says that they are out of date. @throws ImageError 'damaged' */
export function bitmapsOf(path: string, fd: number, header: Header): readonly Bitmap[] {
  const { bitmaps: place, autoclear } = header;
  if (place === undefined || (autoclear & AUTOCLEAR_BITMAPS) === 0n) return [];
  const damaged = () =>
    new ImageError('damaged', `${path} is a damaged qcow2 image: its list of bitmaps makes no sense`);
  const { count, directoryBytes, directoryOffsetBytes } = place;
  const isBounded = count <= COUNT_MAX && directoryBytes <= DIRECTORY_BYTES_MAX;
  if (!isBounded || directoryOffsetBytes > Number.MAX_SAFE_INTEGER - DIRECTORY_BYTES_MAX) throw damaged();
  const cursor = new ReadCursor(readAt(path, fd, Number(directoryOffsetBytes), Number(directoryBytes)));
  try {
    return Array.from({ length: count }, () => {
      const bitmap = parseBitmap(cursor);
      if (bitmap === undefined || bitmap.tableEntries * 2 ** header.clusterBits > BITMAP_BYTES_MAX) throw damaged();
      return bitmap;
    });
  } catch (error) {
    if (error instanceof CursorError) throw damaged();
    throw error;
  }
}

function parseBitmap(cursor: ReadCursor): Bitmap | undefined {
  const before = cursor.remainingBytes;
  const tableOffsetBytes = cursor.u64be();
  const tableEntries = cursor.u32be();
  const flags = cursor.u32be();
  cursor.u8(); // its type
  const granularityBits = cursor.u8();
  const nameBytes = cursor.u16be();
  cursor.bytes(cursor.u32be()); // extra data, which nobody has defined yet
  const name = Buffer.from(cursor.bytes(nameBytes)).toString('utf8');
  cursor.bytes(Math.min((cursor.remainingBytes - before) & (ALIGNMENT_BYTES - 1), cursor.remainingBytes));
  if (granularityBits > GRANULARITY_BITS_MAX) return undefined;
  return {
    name,
    granularityBytes: 2 ** granularityBits,
    isInUse: (flags & IN_USE) !== 0,
    isAuto: (flags & AUTO) !== 0,
    tableOffsetBytes,
    tableEntries,
  };
}
