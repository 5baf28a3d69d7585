import type { Socket } from 'node:net';
import { invariant } from '../base/invariant.js';
import type { ClientGoal, ClientOutcome } from '../protocol/client-goal.js';
import { ClientHandshake } from '../protocol/client-handshake.js';
import type { ListedExport } from '../protocol/option-reply.js';
import type { Address } from '../transport/address.js';
import { connect } from '../transport/connect.js';
import { runHandshake } from '../transport/handshake-socket.js';

/** One deadline over name lookup, connect and the whole list. */
const LIST_LIMIT_MS = 10_000;

/** The exports that a server lists (NBD_OPT_LIST). */
export async function listExports(address: Address): Promise<readonly ListedExport[]> {
  const deadline = AbortSignal.timeout(LIST_LIMIT_MS);
  const socket = await connect(address, deadline);
  try {
    const { exports } = await negotiate(socket, { kind: 'list' }, 'list', deadline);
    return exports;
  } finally {
    socket.destroy();
  }
}

/** Runs the client's handshake to the outcome `wanted`; a server's refusal is thrown. */
export async function negotiate<Kind extends ClientOutcome['kind']>(
  socket: Socket,
  goal: ClientGoal,
  wanted: Kind,
  deadline: AbortSignal,
): Promise<Extract<ClientOutcome, { kind: Kind }>> {
  const outcome = await runHandshake(socket, new ClientHandshake(goal), deadline);
  if (outcome.kind === 'failed') throw outcome.error;
  invariant(outcome.kind === wanted, `a handshake for '${goal.kind}' ends in '${wanted}', not '${outcome.kind}'`);
  return outcome as Extract<ClientOutcome, { kind: Kind }>;
}
