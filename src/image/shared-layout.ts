/**
 * The memory that all workers of an image share: Int32 fields. It begins as zeroes with each opening of the image. Only
 * stable-storage.ts reads and writes the SYNC fields, only block-lock.ts the BLOCK fields,
 * only open-image.ts and raw.ts HAS_HOLES.
 *
 * | field | who writes | meaning |
 * | --- | --- | --- |
 * | SYNC_FAILED | whoever sees it, once | 1: a sync failed; nothing is acknowledged as written any more |
 * | SYNC_LOCK | whoever takes or leaves the lock | 0 free, 1 taken, 2 taken and others may wait |
 * | SYNCS_STARTED | under the lock | the number of the newest sync; wraps around |
 * | SYNCS_DONE | under the lock | the number of the newest sync that went well; wraps around |
 * | BLOCK_HOLDERS | whoever takes or leaves the lock | n: as many share it; −1: one has it alone |
 * | BLOCK_WAITERS | who wants the lock alone | how many do, and have it not yet; nobody else comes to share it then |
 * | BLOCK_TURNS | whoever leaves the lock free | goes up each time; wraps around; this is what is waited for |
 * | HAS_HOLES | whoever finds or makes one | 1: the file may have holes |
 */
export const SYNC_FAILED = 0;
export const SYNC_LOCK = 1;
export const SYNCS_STARTED = 2;
export const SYNCS_DONE = 3;
export const BLOCK_HOLDERS = 4;
export const BLOCK_WAITERS = 5;
export const BLOCK_TURNS = 6;
export const HAS_HOLES = 7;

const fields = 8;

export type SharedFields = Int32Array<SharedArrayBuffer>;

export function newSharedFields(): SharedFields {
  return new Int32Array(new SharedArrayBuffer(fields * Int32Array.BYTES_PER_ELEMENT));
}
