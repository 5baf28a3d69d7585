import { expect, vi } from 'vitest';
import { type Background, background, ok } from './guest.js';
import { tsnbdClientHere } from './programs.js';

// Remote devices with somebody who connects again: in the foreground, so that what the supervisor has to tell comes on stderr.

/** The promise, for a supervisor with all that it holds, and another one that shares Node's program with it. */
export const PSS_KIB_MAX = 52 * 1024;

const clients: Background[] = [];
/** Pages of the kernel that every process has. */
const KERNELS_OWN_KIB = 64;

export async function attachHere(operands: string): Promise<Background> {
  const client = await background(`exec ${tsnbdClientHere} ${operands}`);
  clients.push(client);
  await hears(client, /sz=/);
  return client;
}

export const hears = (client: Background, text: RegExp, timeout = 60_000): Promise<void> =>
  vi.waitFor(() => expect(client.output().stderr).toMatch(text), timeout);

/** All that the process has in memory stays there; answers how much that is, in KiB of PSS. */
export async function expectLocked({ pid }: Pick<Background, 'pid'>): Promise<number> {
  const sums = `sed -nE 's/^(Pss|Locked): *([0-9]+) kB/\\2/p' /proc/${pid}/smaps_rollup`;
  const [pssKiB = 0, lockedKiB = 0] = (await ok(sums)).split('\n').map(Number);
  expect(lockedKiB).toBeGreaterThan(pssKiB - KERNELS_OWN_KIB);
  return pssKiB;
}

/** Ends those that a test has left. */
export async function dropClients(): Promise<void> {
  for (const client of clients.splice(0)) await client.stop('KILL');
}
