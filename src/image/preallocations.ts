/** How much storage a new image takes at once: none, all of it, or all of it with zeroes written. */
export const PREALLOCATIONS = ['off', 'falloc', 'full'] as const;
export type Preallocation = (typeof PREALLOCATIONS)[number];
