import type { ClientGoal, ClientOutcome } from '#tsnbd/protocol/client-goal.js';
import { ClientHandshake } from '#tsnbd/protocol/client-handshake.js';
import type { ExportInfo } from '#tsnbd/protocol/export-info.js';
import { type ExportDirectory, ServerHandshake, type ServerOutcome } from '#tsnbd/protocol/server-handshake.js';
import { join } from './wire.js';

/** What a handshake of our two machines put on the wire, and how it ended on both sides. */
export interface Conversation {
  readonly client: Uint8Array;
  readonly server: Uint8Array;
  readonly clientOutcome: ClientOutcome;
  readonly serverOutcome: ServerOutcome;
}

/** Lets our client and our server talk until nobody has more to say. */
export function converse(goal: ClientGoal, exports: ExportDirectory): Conversation {
  const client = new ClientHandshake(goal);
  const server = new ServerHandshake(exports);
  const clientSaid: Uint8Array[] = [];
  const serverSaid: Uint8Array[] = [];
  for (let answer = server.start(); answer.length > 0; ) {
    serverSaid.push(answer);
    const { send } = client.receive(answer);
    clientSaid.push(send);
    answer = send.length > 0 ? server.receive(send).send : send;
  }
  return {
    client: join(clientSaid),
    server: join(serverSaid),
    clientOutcome: client.end(),
    serverOutcome: server.end(),
  };
}

export function directory(...exports: ExportInfo[]): ExportDirectory {
  return { find: (name) => exports.find((one) => one.name === name), list: () => exports };
}
