import { describe, expect, it } from 'vitest';
import type { ClientGoal, ClientStateName } from '#tsnbd/protocol/client-goal.js';
import { ClientHandshake } from '#tsnbd/protocol/client-handshake.js';
import { ProtocolError } from '#tsnbd/protocol/errors.js';
import { OPTION_DATA_BYTES_MAX, OPTION_REPLY_BYTES_MAX } from '#tsnbd/protocol/limits.js';
import { ServerHandshake } from '#tsnbd/protocol/server-handshake.js';
import type { ServerStateName } from '#tsnbd/protocol/server-states.js';
import { long } from '../long.js';
import { clientSides, contextAnswers, describedAnswers, goAnswers, infoAnswers, listAnswers } from './conversations.js';
import { converse, directory } from './converse.js';
import { mutate } from './mutate.js';
import { hex, join, pieces, seededRandom } from './wire.js';

const SEED = 9;
const HANDSHAKES = 60_000 * (long ? 20 : 1);
/** Each state is to be reached, and left by error, at least so often. */
const HITS_MIN = 100;
/** No handshake here has reason to send more. */
const SENT_BYTES_MAX = 65_536;

interface Fate {
  /** The machine's name for how it ended. */
  readonly end: string;
  readonly error: ProtocolError | undefined;
  readonly sent: Uint8Array;
  /** In the order they were entered. */
  readonly states: readonly string[];
}

const exports = directory(
  { name: 'disk', description: 'a disk', sizeBytes: 1_048_576, flags: 0x016d, contexts: ['base:allocation'] },
  {
    name: 'größe',
    sizeBytes: 2 ** 40,
    flags: 0x010f,
    blockSizes: { minimum: 512, preferred: 4096, maximumPayload: 33_554_432 },
  },
  { name: 'n'.repeat(300), description: 'd'.repeat(300), sizeBytes: 512, flags: 1 },
);

const go: ClientGoal = { kind: 'go', exportName: 'disk' };
const info: ClientGoal = { kind: 'info', exportName: 'disk' };
const goRich: ClientGoal = { ...go, replyStyle: 'extended', contexts: ['base:allocation', 'qemu:allocation-depth'] };
const infoRich: ClientGoal = { ...info, replyStyle: 'extended', listsContexts: true };
const list: ClientGoal = { kind: 'list' };

/** Handshakes of our two machines with each other. */
const goals = [go, info, goRich, infoRich, list, { ...go, exportName: 'größe' }, { ...info, exportName: 'nowhere' }];
const recorded = goals.map((goal) => ({
  goal,
  ...converse(goal, exports),
}));

const toClient: readonly { readonly goal: ClientGoal; readonly bytes: Uint8Array }[] = [
  ...Object.values(goAnswers).map((bytes) => ({ goal: go, bytes })),
  ...Object.values(infoAnswers).map((bytes) => ({ goal: info, bytes })),
  ...Object.values(contextAnswers).map((bytes) => ({ goal: goRich, bytes })),
  ...Object.values(describedAnswers).map((bytes) => ({ goal: infoRich, bytes })),
  ...Object.values(listAnswers).map((bytes) => ({ goal: list, bytes })),
  ...recorded.map(({ goal, server }) => ({ goal, bytes: server })),
];
const toServer: readonly Uint8Array[] = [...Object.values(clientSides), ...recorded.map(({ client }) => client)];

function clientFate(goal: ClientGoal, said: readonly Uint8Array[]): Fate {
  const states: ClientStateName[] = ['INIT_MAGIC'];
  const machine = new ClientHandshake(goal, { onState: (state) => states.push(state) });
  const sent: Uint8Array[] = [];
  for (const piece of said) {
    sent.push(machine.receive(piece).send);
    if (machine.bufferedBytes > OPTION_REPLY_BYTES_MAX) throw new Error(`${machine.bufferedBytes} bytes are held`);
  }
  const outcome = machine.end();
  return { end: outcome.kind, error: outcome.kind === 'failed' ? outcome.error : undefined, sent: join(sent), states };
}

function serverFate(said: readonly Uint8Array[]): Fate {
  const states: ServerStateName[] = ['CLIENT_FLAGS'];
  const machine = new ServerHandshake(exports, { onState: (state) => states.push(state) });
  const sent: Uint8Array[] = [];
  for (const piece of said) {
    const step = machine.receive(piece);
    sent.push(step.send);
    if (machine.bufferedBytes > OPTION_DATA_BYTES_MAX) throw new Error(`${machine.bufferedBytes} bytes are held`);
    if (step.outcome !== undefined) break;
  }
  const outcome = machine.end();
  const error = outcome.kind === 'closed' && outcome.reason.code !== 'aborted' ? outcome.reason : undefined;
  return { end: outcome.kind, error, sent: join(sent), states };
}

/** Runs one side over mutated handshakes; answers the hits of each state and how often it was left by error. */
function fuzz(run: (pick: (below: number) => number) => { said: Uint8Array; fate: (said: Uint8Array[]) => Fate }) {
  const random = seededRandom(SEED);
  const hits = new Map<string, { reached: number; leftByError: number }>();
  const ends = new Map<string, number>();
  for (let handshake = 0; handshake < HANDSHAKES; handshake += 1) {
    const { said, fate } = run(random);
    const where = () => `handshake ${handshake} of seed ${SEED}: ${hex(said)}`;
    const { end, error, sent, states } = survive(() => fate(pieces(said, random, 64)), where);
    if (error !== undefined) checkError(error, where);
    if (sent.length > SENT_BYTES_MAX) throw new Error(`${sent.length} bytes were sent; ${where()}`);
    if (handshake % 16 === 0) {
      const whole = survive(() => fate([said]), where);
      expect([whole.end, whole.error?.message, hex(whole.sent)], where()).toEqual([end, error?.message, hex(sent)]);
    }
    for (const state of states) count(hits, state).reached += 1;
    if (error !== undefined) count(hits, stateOfError(error, states)).leftByError += 1;
    ends.set(error?.code ?? end, (ends.get(error?.code ?? end) ?? 0) + 1);
  }
  return { hits, ends };
}

/** An error reply leads to ENDED from the state that read it; only bytes behind the end are a violation there. */
function stateOfError(error: ProtocolError, states: readonly string[]): string {
  const last = states.at(-1) ?? 'none';
  return last === 'ENDED' && error.code !== 'violation' ? (states.at(-2) ?? 'none') : last;
}

/** A machine answers everything by an outcome: whatever it throws is a bug. */
function survive(run: () => Fate, where: () => string): Fate {
  try {
    return run();
  } catch (cause) {
    throw new Error(`a machine threw; ${where()}`, { cause });
  }
}

function checkError(error: ProtocolError, where: () => string): void {
  if (error instanceof ProtocolError && /^[^\p{Cc}]{10,1000}$/u.test(error.message)) return;
  throw new Error(`not a clear error: ${String(error)}; ${where()}`);
}

function count(hits: Map<string, { reached: number; leftByError: number }>, state: string) {
  const entry = hits.get(state) ?? { reached: 0, leftByError: 0 };
  hits.set(state, entry);
  return entry;
}

function report(side: string, states: readonly string[], { hits, ends }: ReturnType<typeof fuzz>): void {
  const rows = states.map(
    (state) => [state, hits.get(state)?.reached ?? 0, hits.get(state)?.leftByError ?? 0] as const,
  );
  const lines = rows.map(([state, reached, left]) => `  ${state.padEnd(24)} ${reached} reached, ${left} left by error`);
  const ended = Array.from(ends, ([end, times]) => `${end} ${times}`).join(', ');
  console.log([`${side}, ${HANDSHAKES} handshakes, seed ${SEED}`, ...lines, `  ends: ${ended}`].join('\n'));
  const rare = rows.filter(([state, reached, left]) => reached < HITS_MIN || (state !== 'ENDED' && left < HITS_MIN));
  expect(rare, `states reached or left by error fewer than ${HITS_MIN} times`).toEqual([]);
  expect([...hits.keys()].filter((state) => !states.includes(state))).toEqual([]);
}

const clientStates: Record<ClientStateName, true> = {
  INIT_MAGIC: true,
  SERVER_MAGIC: true,
  HANDSHAKE_FLAGS: true,
  'OPT_EXTENDED_HEADERS.REPLY_HEADER': true,
  'OPT_EXTENDED_HEADERS.REPLY_DATA': true,
  'OPT_STRUCTURED_REPLY.REPLY_HEADER': true,
  'OPT_STRUCTURED_REPLY.REPLY_DATA': true,
  'OPT_LIST_META_CONTEXT.REPLY_HEADER': true,
  'OPT_LIST_META_CONTEXT.REPLY_DATA': true,
  'OPT_SET_META_CONTEXT.REPLY_HEADER': true,
  'OPT_SET_META_CONTEXT.REPLY_DATA': true,
  'OPT_GO.REPLY_HEADER': true,
  'OPT_GO.REPLY_DATA': true,
  'OPT_INFO.REPLY_HEADER': true,
  'OPT_INFO.REPLY_DATA': true,
  'OPT_LIST.REPLY_HEADER': true,
  'OPT_LIST.REPLY_DATA': true,
  'OPT_EXPORT_NAME.REPLY': true,
  'OPT_EXPORT_NAME.ZEROES': true,
  ENDED: true,
};
const serverStates: Record<ServerStateName, true> = {
  CLIENT_FLAGS: true,
  OPTION_HEADER: true,
  OPT_EXPORT_NAME: true,
  OPT_ABORT: true,
  OPT_LIST: true,
  OPT_STARTTLS: true,
  OPT_INFO: true,
  OPT_GO: true,
  OPT_STRUCTURED_REPLY: true,
  OPT_LIST_META_CONTEXT: true,
  OPT_SET_META_CONTEXT: true,
  OPT_EXTENDED_HEADERS: true,
  OPT_UNKNOWN: true,
  ENDED: true,
};

describe('damaged handshakes', () => {
  it('end in a clear error of the client, whatever a server sends', () => {
    const corpus = toClient.map(({ bytes }) => bytes);
    const result = fuzz((random) => {
      const { goal, bytes } = oneOf(toClient, random);
      return { said: mutate(bytes, corpus, random), fate: (said) => clientFate(goal, said) };
    });
    report('client', Object.keys(clientStates), result);
  });

  it('end in a clear error of the server, whatever a client sends', () => {
    const result = fuzz((random) => ({ said: mutate(oneOf(toServer, random), toServer, random), fate: serverFate }));
    report('server', Object.keys(serverStates), result);
  });
});

function oneOf<T>(all: readonly T[], random: (below: number) => number): T {
  const one = all[random(all.length)];
  if (one === undefined) throw new Error('nothing to choose from');
  return one;
}
