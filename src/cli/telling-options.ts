import type { OptionTable } from './option-table.js';

/** The options by which every program tells of itself. */
export function helpOptions<Mode extends string>(every: readonly Mode[]) {
  return {
    help: { short: 'h', modes: every, help: 'Print a summary and exit.' },
    version: { short: 'V', modes: every, help: 'Print the version and exit.' },
  } satisfies OptionTable<Mode>;
}

/** The same, and those by which it tells of what it does; the steps only in the modes `withSteps`. */
export function tellingOptions<Mode extends string>(every: readonly Mode[], withSteps: readonly Mode[]) {
  return {
    verbose: { short: 'v', modes: withSteps, help: 'Tell the steps.' },
    debug: { modes: withSteps, help: 'Tell the steps, and of a failure where in the program it arose.' },
    ...helpOptions(every),
  } satisfies OptionTable<Mode>;
}
