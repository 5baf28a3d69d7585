import { runProgram } from './run-program.js';

/** A TCP connection by its ends, where nobody has an fd of it any more. */
export interface TcpEnds {
  readonly localPort: number;
  readonly remoteAddress: string;
  readonly remotePort: number;
}

const LIMIT_MS = 5_000;

/**
 * Ends TCP connections of this network namespace from outside (SOCK_DESTROY of sock_diag(7), by ss of iproute2): who waits in one,
 * in the kernel too, gets an error. Nothing happens where the kernel cannot (CONFIG_INET_DIAG_DESTROY), or there is no ss.
 */
export async function endTcp(connections: readonly TcpEnds[]): Promise<void> {
  for (const { localPort, remoteAddress, remotePort } of connections) {
    const peer = remoteAddress.includes(':') ? `[${remoteAddress}]` : remoteAddress;
    const which = ['dst', peer, 'dport', '=', String(remotePort), 'sport', '=', String(localPort)];
    await runProgram('ss', ['-K', '-t', ...which], { limitMs: LIMIT_MS });
  }
}
