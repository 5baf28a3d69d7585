/**
 * The memory that all workers of an image share: Int32 fields. It begins as zeroes with each opening of the image, and
 * only stable-storage.ts reads and writes it.
 *
 * | field | who writes | meaning |
 * | --- | --- | --- |
 * | SYNC_FAILED | under the lock, once | 1: a sync failed; nothing is acknowledged as written any more |
 * | SYNC_LOCK | whoever takes or leaves the lock | 0 free, 1 taken, 2 taken and others may wait |
 * | SYNCS_STARTED | under the lock | the number of the newest sync; wraps around |
 * | SYNCS_DONE | under the lock | the number of the newest sync that went well; wraps around |
 */
export const SYNC_FAILED = 0;
export const SYNC_LOCK = 1;
export const SYNCS_STARTED = 2;
export const SYNCS_DONE = 3;

const fields = 4;

export type SharedFields = Int32Array<SharedArrayBuffer>;

export function newSharedFields(): SharedFields {
  return new Int32Array(new SharedArrayBuffer(fields * Int32Array.BYTES_PER_ELEMENT));
}
