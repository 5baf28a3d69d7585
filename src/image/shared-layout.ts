/** What all workers of an image share, and its opener: Int32 fields by index. Each is written with Atomics. */
export const SHARED_FIELDS = 1;

/**
 * Not 0 once an fsync has failed. The kernel tells of such a loss once and then calls the pages clean, so from then on no
 * worker acknowledges a write or a flush. Any worker sets it, none clears it: that takes a new opening of the image.
 */
export const SYNC_FAILED = 0;

export type SharedFields = Int32Array<SharedArrayBuffer>;

export function newSharedFields(): SharedFields {
  return new Int32Array(new SharedArrayBuffer(SHARED_FIELDS * Int32Array.BYTES_PER_ELEMENT));
}
