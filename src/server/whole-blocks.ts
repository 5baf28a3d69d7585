/** What most disks and file systems write as a whole. */
const BLOCK_BYTES = 4_096;

/**
 * How many of `length` bytes that have come of a WRITE, `leftBytes` of which are not written, are to be written now: what is behind the
 * last whole block waits for its rest. A part of a block has the block read first, from a disk that may be slow, or may not have it.
 */
export function wholeBlocks(offsetBytes: number, length: number, leftBytes: number): number {
  return length === leftBytes ? length : Math.max(0, length - ((offsetBytes + length) % BLOCK_BYTES));
}

/** How many bytes are missing of the block in which `endBytes` lies. */
export function restOfBlock(endBytes: number): number {
  return BLOCK_BYTES - (endBytes % BLOCK_BYTES);
}
