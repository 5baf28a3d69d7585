import { expect, vi } from 'vitest';
import { type Background, background } from './guest.js';
import { tsnbdClientHere } from './programs.js';

// Remote devices with somebody who connects again: in the foreground, so that what the supervisor has to tell comes on stderr.

const clients: Background[] = [];

export async function attachHere(operands: string): Promise<Background> {
  const client = await background(`exec ${tsnbdClientHere} ${operands}`);
  clients.push(client);
  await hears(client, /sz=/);
  return client;
}

export const hears = (client: Background, text: RegExp, timeout = 60_000): Promise<void> =>
  vi.waitFor(() => expect(client.output().stderr).toMatch(text), timeout);

/** Ends those that a test has left. */
export async function dropClients(): Promise<void> {
  for (const client of clients.splice(0)) await client.stop('KILL');
}
