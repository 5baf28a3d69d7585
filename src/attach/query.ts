import type { Socket } from 'node:net';
import { invariant } from '../base/invariant.js';
import type { ClientGoal, ClientOutcome } from '../protocol/client-goal.js';
import { ClientHandshake } from '../protocol/client-handshake.js';
import { ProtocolError } from '../protocol/errors.js';
import { DEFAULT_BLOCK_SIZES, type ExportInfo } from '../protocol/export-info.js';
import type { OnHandshakeMessage } from '../protocol/handshake-message.js';
import type { ListedExport } from '../protocol/option-reply.js';
import type { ReplyStyle } from '../protocol/reply.js';
import { type Address, addressInWords } from '../transport/address.js';
import { connect } from '../transport/connect.js';
import { TransportError } from '../transport/errors.js';
import { runHandshake } from '../transport/handshake-socket.js';
import { TransmissionSocket } from '../transport/transmission-socket.js';
import type { NbdTarget } from '../transport/uri.js';
import { CONNECT_LIMIT_MS } from './connect-limit.js';

/** What a server tells of one of its exports. */
export interface ExportDescription {
  /** As it was asked for. */
  readonly exportName: string;
  readonly info: ExportInfo;
  readonly fixedNewstyle: boolean;
  /** The richest that the server grants. */
  readonly replyStyle: ReplyStyle;
  /** Names of the metadata contexts that a client may select. */
  readonly contexts: readonly string[];
}

/** A connection on which requests can be made. */
export interface OpenExport {
  readonly socket: TransmissionSocket;
  readonly outcome: Extract<ClientOutcome, { kind: 'transmission' }>;
}

/** A connection to a server, and where that listens, to name it in errors. */
export interface ServerConnection {
  readonly socket: Socket;
  readonly address: Address;
}

/** The exports that a server lists (NBD_OPT_LIST). */
export async function listExports(address: Address, onMessage?: OnHandshakeMessage): Promise<readonly ListedExport[]> {
  const { exports } = await ask(address, { kind: 'list' }, 'list', onMessage);
  return exports;
}

/**
 * Asks a server for all it tells of an export, as a client that goes away again: a server that ends with its last client
 * stays. Only one that knows no NBD_OPT_INFO, or tells no size there as nbd-server does, is made to open the export.
 */
export async function describeExport(
  { address, exportName }: NbdTarget,
  onMessage?: OnHandshakeMessage,
): Promise<ExportDescription> {
  const goal = { kind: 'info', exportName, replyStyle: 'extended', listsContexts: true } as const;
  let informed: ExportDescription | undefined;
  try {
    const { export: info, replyStyle, contexts } = await ask(address, goal, 'info', onMessage);
    informed = { exportName, info, fixedNewstyle: true, replyStyle, contexts };
    if (info.sizeBytes > 0) return informed;
  } catch (error) {
    if (!isCode(error, 'unsupported')) throw error;
  }
  try {
    return {
      ...(await describeByGoing({ address, exportName }, onMessage)),
      ...(informed && { contexts: informed.contexts }),
    };
  } catch (error) {
    if (informed !== undefined && isCode(error, 'unusable-export')) return informed; // it is empty
    throw error;
  }
}

/** Opens an export for requests, with the richest replies and those of the `contexts` that the server has. */
export async function openExport(
  { address, exportName }: NbdTarget,
  contexts: readonly string[],
  onMessage?: OnHandshakeMessage,
): Promise<OpenExport> {
  const deadline = AbortSignal.timeout(CONNECT_LIMIT_MS);
  const socket = await connect(address, deadline);
  try {
    const goal = { kind: 'go', exportName, replyStyle: 'extended', contexts } as const;
    const outcome = await negotiate({ socket, address }, goal, 'transmission', deadline, onMessage);
    const { sizeBytes, blockSizes = DEFAULT_BLOCK_SIZES } = outcome.export;
    const terms = { replyStyle: outcome.replyStyle, contexts: outcome.contexts, sizeBytes, blockSizes };
    return { socket: new TransmissionSocket(socket, terms), outcome };
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

/** Runs the client's handshake to the outcome `wanted`; a server's refusal is thrown. */
export async function negotiate<Kind extends ClientOutcome['kind']>(
  { socket, address }: ServerConnection,
  goal: ClientGoal,
  wanted: Kind,
  deadline: AbortSignal,
  onMessage?: OnHandshakeMessage,
): Promise<Extract<ClientOutcome, { kind: Kind }>> {
  const machine = new ClientHandshake(goal, onMessage === undefined ? {} : { onMessage });
  const outcome = await runHandshake(socket, machine, deadline).catch((error: unknown) => {
    throw withServer(address, error);
  });
  if (outcome.kind === 'failed') throw withServer(address, outcome.error);
  invariant(outcome.kind === wanted, `a handshake for '${goal.kind}' ends in '${wanted}', not '${outcome.kind}'`);
  return outcome as Extract<ClientOutcome, { kind: Kind }>;
}

/** The error of a server that is not there, or not for us: which one that is has to be said, as when it cannot be connected to. */
function withServer(address: Address, error: unknown): unknown {
  const named = (message: string) => `${addressInWords(address)}: ${message}`;
  if (error instanceof TransportError && error.code !== 'interrupted') {
    return new TransportError(error.code, named(error.message), { cause: error });
  }
  if (error instanceof ProtocolError && error.code === 'closed') {
    return new ProtocolError(error.code, named(error.message), { cause: error });
  }
  return error;
}

/** Whether a server says anything at all; a refusal is an answer too. */
export async function isAnswering({ address, exportName }: NbdTarget, deadline: AbortSignal): Promise<boolean> {
  try {
    await ask(address, { kind: 'info', exportName }, 'info', undefined, deadline);
    return true;
  } catch (error) {
    return error instanceof ProtocolError;
  }
}

/** One negotiation on a connection of its own. */
async function ask<Kind extends 'info' | 'list'>(
  address: Address,
  goal: ClientGoal,
  wanted: Kind,
  onMessage?: OnHandshakeMessage,
  deadline = AbortSignal.timeout(CONNECT_LIMIT_MS),
): Promise<Extract<ClientOutcome, { kind: Kind }>> {
  const socket = await connect(address, deadline);
  try {
    return await negotiate({ socket, address }, goal, wanted, deadline, onMessage);
  } finally {
    socket.destroy();
  }
}

async function describeByGoing(target: NbdTarget, onMessage?: OnHandshakeMessage): Promise<ExportDescription> {
  const { socket, outcome } = await openExport(target, [], onMessage);
  const { exportName } = target;
  socket.leave();
  const { export: info, fixedNewstyle, replyStyle } = outcome;
  return { exportName, info, fixedNewstyle, replyStyle, contexts: [] };
}

function isCode(error: unknown, code: ProtocolError['code']): boolean {
  return error instanceof ProtocolError && error.code === code;
}
