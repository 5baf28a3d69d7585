/**
 * The memory that all workers of an image share: Int32 fields, and behind them the table of ranges. It begins as zeroes
 * with each opening of the image. Only stable-storage.ts reads and writes the SYNC fields, only range-lock.ts the RANGES,
 * only open-raw.ts and raw.ts HAS_HOLES, only guessed-raw.ts EDGES_LOCK.
 *
 * | field | who writes | meaning |
 * | --- | --- | --- |
 * | SYNC_FAILED | whoever sees it, once | 1: a sync failed; nothing is acknowledged as written any more; trouble.ts waits for it |
 * | SYNC_LOCK | whoever takes or leaves the lock | 0 free, 1 taken, 2 taken and others may wait |
 * | SYNCS_STARTED | whoever begins a sync | the number of the newest sync; wraps around |
 * | SYNCS_DONE | whoever saw a sync end | the number of the newest sync that went well; wraps around |
 * | RANGES_LOCK | whoever takes or leaves the lock | as SYNC_LOCK |
 * | RANGES_TURNS | whoever gives a range back | goes up each time; wraps around; this is what is waited for |
 * | RANGES_WAITING | whoever waits for a range | how many do |
 * | HAS_HOLES | whoever finds or makes one | 1: the file may have holes |
 * | EDGES_LOCK | whoever takes or leaves the lock | as SYNC_LOCK |
 * | the table | under RANGES_LOCK | RANGES_MAX rows of three Float64: what a range is held as (0 free), begin and end in bytes |
 */
export const SYNC_FAILED = 0;
export const SYNC_LOCK = 1;
export const SYNCS_STARTED = 2;
export const SYNCS_DONE = 3;
export const RANGES_LOCK = 4;
export const RANGES_TURNS = 5;
export const HAS_HOLES = 6;
export const RANGES_WAITING = 7;
export const EDGES_LOCK = 8;

/** Even: the table's rows begin at a multiple of 8 bytes. */
const fields = 10;

/** More workers than that wait for each other. */
export const RANGES_MAX = 64;
/** Float64 a row. */
export const RANGE_FIELDS = 3;

const tableAtBytes = fields * Int32Array.BYTES_PER_ELEMENT;

export type SharedFields = Int32Array<SharedArrayBuffer>;

export function newSharedFields(): SharedFields {
  const bytes = tableAtBytes + RANGES_MAX * RANGE_FIELDS * Float64Array.BYTES_PER_ELEMENT;
  return new Int32Array(new SharedArrayBuffer(bytes), 0, fields);
}

export function rangeTable(shared: SharedFields): Float64Array<SharedArrayBuffer> {
  return new Float64Array(shared.buffer, tableAtBytes, RANGES_MAX * RANGE_FIELDS);
}
