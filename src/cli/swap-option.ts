import type { OptionTable } from './option-table.js';

/** For a device that swap is to be on, in every program that attaches. */
export function swapOption<Mode extends string>(modes: readonly Mode[]) {
  return {
    swap: {
      modes,
      help: 'Keep all of the memory of the process behind the device from being swapped out, for a device that swap, or the root file system of a machine with swap, is to be on; refused where that is not allowed. An image is best attached with --cache=none then: through the page cache each page that is swapped out needs another one until it is written.',
    },
  } satisfies OptionTable<Mode>;
}
