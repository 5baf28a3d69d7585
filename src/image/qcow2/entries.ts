/**
 * Entries of L1 and L2 tables (qcow2.rst, 'Cluster mapping'), each as the two halves of its 64 bits: numbers, because the
 * path of every request goes through here.
 */

/** Bit 63 of an L1 or L2 entry: the refcount of what it points to is exactly one, so it may be changed in place. */
export const COPIED = 0x8000_0000 | 0;
/** Bit 62 of an L2 entry. */
const COMPRESSED = 0x4000_0000;
/** Bit 0 of an L2 entry: reads as zeroes (version 3, without subclusters). */
export const ZERO = 1;

const OFFSET_HIGH = 0x00ff_ffff;
const OFFSET_LOW = 0xffff_fe00 | 0;
/** Bits 53 to 55: no file reaches there, and no number counts so far. */
const OFFSET_TOO_HIGH = 0x00e0_0000;
const HIGH = 2 ** 32;

const SECTOR_BYTES = 512;

export function isCopied(high: number): boolean {
  return (high & COPIED) !== 0;
}

export function isCompressed(high: number): boolean {
  return (high & COMPRESSED) !== 0;
}

/** Where the cluster or table that an entry points to begins; −1 where no file can reach. */
export function hostOffset(high: number, low: number): number {
  if ((high & OFFSET_TOO_HIGH) !== 0) return -1;
  return (high & OFFSET_HIGH) * HIGH + ((low & OFFSET_LOW) >>> 0);
}

/** The upper half of an entry that points to `offsetBytes` and has COPIED set. */
export function copiedHigh(offsetBytes: number): number {
  return COPIED | Math.floor(offsetBytes / HIGH) | 0;
}

/** The lower half of an entry that points to `offsetBytes`. */
export function offsetLow(offsetBytes: number): number {
  return (offsetBytes % HIGH) | 0;
}

/** Where the data of a compressed cluster lie: they may end earlier than told. */
export interface CompressedPlace {
  offsetBytes: number;
  lengthBytes: number;
}

/** Fills `place` from an entry that isCompressed; false where no file can reach. */
export function compressedPlace(high: number, low: number, clusterBits: number, place: CompressedPlace): boolean {
  // The sectors stand in the bits from 62 − (clusterBits − 8) to 61; they never reach down into the lower half.
  const sectorsShift = 62 - (clusterBits - 8) - 32;
  const descriptor = high & ~(COPIED | COMPRESSED);
  const sectors = descriptor >>> sectorsShift;
  const offsetHigh = descriptor & ((1 << sectorsShift) - 1);
  if (offsetHigh >= 2 ** 21) return false;
  place.offsetBytes = offsetHigh * HIGH + (low >>> 0);
  place.lengthBytes = (sectors + 1) * SECTOR_BYTES - (place.offsetBytes % SECTOR_BYTES);
  return true;
}

/** Swaps the bytes of a word: tables are kept as they stand in the file, most significant byte first. */
export function swapped(word: number): number {
  return (word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24);
}
