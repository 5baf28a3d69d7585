/**
 * How much storage a new image takes at once: none, all of it, or all of it with zeroes written. With 'metadata' a qcow2
 * image has all of its tables, and nothing of what they point to.
 */
export const RAW_PREALLOCATIONS = ['off', 'falloc', 'full'] as const;
export const QCOW2_PREALLOCATIONS = ['off', 'metadata', 'falloc', 'full'] as const;
export type RawPreallocation = (typeof RAW_PREALLOCATIONS)[number];
export type Qcow2Preallocation = (typeof QCOW2_PREALLOCATIONS)[number];
