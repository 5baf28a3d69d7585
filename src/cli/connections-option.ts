import type { OptionTable } from './option-table.js';
import { connectionCount } from './option-values.js';

/** How many connections are made to a server. */
export function connectionsOption<Mode extends string>(modes: readonly Mode[]) {
  return {
    connections: {
      short: 'C',
      value: '<NUM>',
      read: connectionCount,
      modes,
      help: 'Make NUM connections, 1 unless given, or fewer where the server does not allow so many, which is told. With more than one, the kernel cuts off a connection on which a request takes longer than --timeout, or than 30 seconds, and sends the request again while the server may still be at the first: a slow write can then come to lie over a later one. Only for a server that never takes so long.',
    },
  } satisfies OptionTable<Mode>;
}
