/**
 * The cache modes, by qemu-nbd's names: whether reads and writes go past the page cache (O_DIRECT), and what is on stable
 * storage when it is answered: what was asked for by FLUSH and FUA, every write, or nothing.
 */
export const CACHE_MODES = {
  writeback: { direct: false, durable: 'asked' },
  none: { direct: true, durable: 'asked' },
  writethrough: { direct: false, durable: 'always' },
  directsync: { direct: true, durable: 'always' },
  unsafe: { direct: false, durable: 'never' },
} as const satisfies Readonly<Record<string, { direct: boolean; durable: 'asked' | 'always' | 'never' }>>;

export type CacheMode = keyof typeof CACHE_MODES;

/** What becomes of a client's wish to give storage back, by TRIM or by a WRITE_ZEROES that may. */
export type DiscardMode = 'unmap' | 'ignore';

/** What becomes of a write whose bytes are all zeroes: it is a write, a zeroing, or one that gives storage back. */
export type DetectZeroes = 'off' | 'on' | 'unmap';
