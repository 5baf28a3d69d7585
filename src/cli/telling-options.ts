import type { OptionTable } from './option-table.js';

/** The options by which every program tells of itself. */
export function helpOptions<Mode extends string>(every: readonly Mode[]) {
  return {
    help: { short: 'h', modes: every, help: 'Print a summary and exit.' },
    version: { short: 'V', modes: every, help: 'Print the version and exit.' },
  } satisfies OptionTable<Mode>;
}

/** For what asks a server and has no steps. */
export function debugOption<Mode extends string>(modes: readonly Mode[]) {
  return {
    debug: {
      modes,
      help: 'Tell each message of the negotiation with a server, and of a failure where in the program it arose.',
    },
  } satisfies OptionTable<Mode>;
}

/** The same, and those by which it tells of what it does: the steps, and where it is `negotiating` what either side says. */
export function tellingOptions<Mode extends string>(
  every: readonly Mode[],
  withSteps: readonly Mode[],
  negotiating: readonly Mode[],
) {
  const negotiation = negotiating.length === 0 ? '' : 'each message of a negotiation, ';
  return {
    verbose: { short: 'v', modes: withSteps, help: 'Tell the steps.' },
    debug: {
      modes: [...new Set([...withSteps, ...negotiating])],
      help: `Tell the steps, ${negotiation}and of a failure where in the program it arose.`,
    },
    ...helpOptions(every),
  } satisfies OptionTable<Mode>;
}
