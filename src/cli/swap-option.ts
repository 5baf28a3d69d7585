import type { OptionTable } from './option-table.js';

/** For a device that swap is to be on, in every program that attaches. */
export function swapOption<Mode extends string>(modes: readonly Mode[]) {
  return {
    swap: {
      modes,
      help: 'Keep all of the memory of the process behind the device from being swapped out, for a device that swap, or the root file system of a machine with swap, is to be on; refused where that is not allowed. An image of this machine is a poor place for swap all the same: what is swapped out needs memory until it is answered, more of it through the page cache, and the machine may stand still.',
    },
  } satisfies OptionTable<Mode>;
}
