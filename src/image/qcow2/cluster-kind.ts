/** What a range of the disk is, by its L2 entries. */
export const UNALLOCATED = 0;
export const ZEROES = 1;
/** Reads as zeroes, and has storage all the same. */
export const ZEROES_ALLOCATED = 2;
export const DATA = 3;
export const COMPRESSED = 4;
/** The entry makes no sense. */
export const INVALID = 5;
