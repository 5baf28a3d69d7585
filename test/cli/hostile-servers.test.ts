import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { exitReasonOf, exitStatus } from '#tsnbd/cli/exit-status.js';
import { showInfo } from '#tsnbd/cli/info.js';
import { showList } from '#tsnbd/cli/list.js';
import { showMap } from '#tsnbd/cli/map.js';
import type { Address } from '#tsnbd/transport/address.js';
import {
  ACK,
  contextAnswers,
  describedAnswers,
  greeting,
  INFO,
  infoExport,
  LIST,
  listAnswers,
  REP_INFO,
  reply,
  SERVER,
} from '../protocol/conversations.js';
import { join as concatenated, wire } from '../protocol/wire.js';

const GREETING_BYTES = [8, 8, 2];
const REPLY_HEADER_BYTES = 20;
/** What all that a server sends of an answer without end has to stay below, and the client's memory with it. */
const ENDLESS_BYTES_MAX = 8 << 20;
const quiet = { verbose: false, debug: false };

let folder: string;
let sentBytes: number;
const servers: Server[] = [];
const sockets = new Set<Socket>();
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-hostile-'));
  sentBytes = 0;
});
afterEach(() => {
  vi.restoreAllMocks();
  for (const server of servers.splice(0)) server.close();
  expect(sockets.size).toBe(0); // whatever came of it, our end of each connection is closed
  rmSync(folder, { recursive: true });
});

/** The commands that ask a server, and what one says to each that has 'disk'. */
const COMMANDS = {
  info: {
    ask: (address: Address) => {
      const source = { kind: 'export', target: { address, exportName: 'disk' } } as const;
      return showInfo('tsnbd', { kind: 'info', source, json: false, backingChain: false, verbosity: quiet });
    },
    answers: messagesOf(describedAnswers.extended),
  },
  list: {
    ask: (address: Address) => showList('tsnbd', { address, json: false, verbosity: quiet }),
    answers: messagesOf(listAnswers.two),
  },
  map: {
    ask: (address: Address) => {
      const source = { kind: 'export', target: { address, exportName: 'disk' } } as const;
      return showMap('tsnbd', { kind: 'map', source, form: 'text', verbosity: quiet });
    },
    answers: messagesOf(contextAnswers.structured),
  },
} as const;
type Command = keyof typeof COMMANDS;

/** Both magics, the flags, and each reply. */
function messagesOf(said: Uint8Array): readonly Uint8Array[] {
  const messages: Uint8Array[] = [];
  for (let at = 0; at < said.length; ) {
    const header = Buffer.from(said.subarray(at, at + REPLY_HEADER_BYTES));
    const bytes = GREETING_BYTES[messages.length] ?? REPLY_HEADER_BYTES + header.readUInt32BE(16);
    messages.push(said.subarray(at, at + bytes));
    at += bytes;
  }
  return messages;
}

/** What the user of a command sees: the line on stderr, or the last on stdout, and the exit status. */
interface Seen {
  readonly line: string;
  readonly status: number;
}

/** Has the command ask a server that says `words` to whoever comes, whatever it hears, and then does as `then`. */
async function ask(command: Command, words: Uint8Array, then: (socket: Socket) => void): Promise<Seen> {
  const path = join(folder, `socket-${servers.length}`);
  let closed: () => void = () => {};
  const isClosed = new Promise<void>((resolve) => {
    closed = resolve;
  });
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => {
      sockets.delete(socket);
      closed();
    });
    socket.on('error', () => {}).resume();
    socket.write(words);
    then(socket);
  }).listen(path);
  servers.push(server);
  await new Promise((resolve) => server.once('listening', resolve));
  try {
    const stdout = vi.spyOn(process.stdout, 'write').mockReturnValue(true);
    const status = await COMMANDS[command].ask({ kind: 'unix', path });
    return { line: String(stdout.mock.calls.at(-1)?.[0]), status };
  } catch (error) {
    const line = `tsnbd: ${error instanceof Error ? error.message : error}`;
    return { line, status: exitStatus(exitReasonOf(error), 'tsnbd') };
  } finally {
    await isClosed;
  }
}

const closes = (socket: Socket) => void socket.end();
const stays = () => {};
/** Says `more` again and again, as fast as it is read. */
const repeats = (more: Uint8Array) => (socket: Socket) => {
  const send = () => {
    do sentBytes += more.length;
    while (socket.write(more));
  };
  socket.on('drain', send);
  send();
};
const drips = (words: Uint8Array) => (socket: Socket) => {
  let at = 0;
  const timer = setInterval(() => socket.write(words.subarray(at, ++at)), 20);
  socket.on('close', () => clearInterval(timer));
};

const flipped = (message: Uint8Array, at: number) => {
  const changed = Uint8Array.from(message);
  changed[at] = (changed[at] ?? 0) ^ 0xff;
  return changed;
};
const NO_REPLY = 'the server sent something else where a reply to an option should begin';
/** What is said of other bytes in the place of a message, by its index. */
const GARBLED = [
  'what answers there is not an NBD server (it does not begin with NBDMAGIC)',
  'what answers there begins like an NBD server and goes on otherwise',
];
const garbled = (index: number): Seen => ({ line: `tsnbd: ${GARBLED[index] ?? NO_REPLY}`, status: 6 });
const FLAGS_INDEX = 2;

describe.each(Object.keys(COMMANDS) as Command[])('tsnbd %s of a server', (command) => {
  const { answers } = COMMANDS[command];
  const said = (index: number) => concatenated(answers.slice(0, index));
  const everywhere = [...answers.keys()];
  const replies = everywhere.filter((index) => index > FLAGS_INDEX);

  test('that closes the connection at any point of the handshake', async () => {
    for (const index of everywhere) {
      const how = index === 0 ? 'without a word' : expect.stringMatching(/^in the negotiation \([A-Z_.]+\)$/);
      const { line, status } = await ask(command, said(index), closes);
      expect([line.split(' closed the connection ')[1], status], `after message ${index}`).toEqual([how, 6]);
    }
  });

  test('that sends garbage at any point of it', async () => {
    const garbage = new Uint8Array(4_096).fill(0x55);
    for (const index of everywhere) {
      const seen = await ask(command, concatenated([said(index), garbage]), stays);
      expect(seen, `after message ${index}`).toEqual(garbled(index));
    }
  });

  test('that has any of its magics wrong', async () => {
    for (const index of [0, 1, ...replies]) {
      const words = concatenated([said(index), flipped(answers[index] as Uint8Array, 7)]);
      expect(await ask(command, words, stays), `message ${index}`).toEqual(garbled(index));
    }
  });

  test('that answers another option than was asked', async () => {
    for (const index of replies) {
      const words = concatenated([said(index), flipped(answers[index] as Uint8Array, 11)]);
      const line = expect.stringMatching(/^tsnbd: the server answered option [0-9]+; it was asked [0-9]+$/);
      expect(await ask(command, words, stays), `message ${index}`).toEqual({ line, status: 6 });
    }
  });

  test('that stalls at any point of it, or speaks byte by byte, for no longer than the limit', async () => {
    const { timeout } = AbortSignal;
    vi.spyOn(AbortSignal, 'timeout').mockImplementation((ms) => timeout.call(AbortSignal, ms / 25));
    const slow = ask(command, said(1), drips(concatenated(answers.slice(1))));
    const silent = everywhere.map((index) => ask(command, said(index), stays));
    for (const [index, seen] of (await Promise.all([...silent, slow])).entries()) {
      const what = `cannot ${index === 0 ? 'begin' : 'finish'} the negotiation`;
      const line = expect.stringMatching(`^tsnbd: \\S+/socket-[0-9]+: ${what}: no answer within the time limit$`);
      expect(seen, `after message ${index}`).toEqual({ line, status: 7 });
    }
  });
});

const informed = (...replies: Uint8Array[]) =>
  concatenated([
    greeting.fixed,
    reply(11, ACK),
    reply(9, ACK),
    ...replies.map((data) => reply(INFO, REP_INFO, data)),
    reply(INFO, ACK),
  ]);
const ofBytes = (sizeBytes: bigint) => wire(`0000 ${sizeBytes.toString(16).padStart(16, '0')} 0001`);
const blocks = (minimum: string, preferred: string, maximum: string) =>
  informed(infoExport, wire(`0003 ${minimum} ${preferred} ${maximum}`));
const longName = new Uint8Array(4_097).fill(0x61);

describe('a server', () => {
  test.each<[string, Command, Uint8Array, RegExp]>([
    ['an export of 2^63 bytes', 'info', informed(ofBytes(2n ** 63n)), /9223372036854775808 bytes; at most/],
    ['blocks of 3 bytes', 'info', blocks('00000003', '00001000', '02000000'), /minimum block size of 3: not a power/],
    [
      'blocks of 2^31 bytes',
      'info',
      blocks('80000000', '80000000', '80000000'),
      /minimum block size of 2147483648: not/,
    ],
    [
      'preferred blocks of 2^31 bytes',
      'info',
      blocks('00000001', '80000000', '02000000'),
      /takes at most 33554432 bytes/,
    ],
    ['requests of 0 bytes', 'info', blocks('00000001', '00001000', '00000000'), /takes at most 0 bytes at once/],
    [
      'an export whose name has 4,097 bytes',
      'info',
      informed(infoExport, concatenated([wire('0001'), longName])),
      /4096/,
    ],
    [
      'a list with a name of 4,097 bytes',
      'list',
      concatenated([greeting.fixed, reply(LIST, SERVER, concatenated([wire('00001001'), longName]))]),
      /4096/,
    ],
    [
      'a list with a name that is longer than its line',
      'list',
      concatenated([greeting.fixed, reply(LIST, SERVER, wire('ffffffff 61'))]),
      /lengths do not add up/,
    ],
  ])('is refused that has %s', async (_what, command, words, why) => {
    const { line, status } = await ask(command, words, stays);
    expect(line).toMatch(why);
    expect(line).toMatch(/^tsnbd: the server [^\n]+$/);
    expect(status).toBe(6);
  });

  test.each<[string, Command, Uint8Array, Uint8Array, RegExp]>([
    [
      'information',
      'info',
      concatenated([greeting.fixed, reply(11, ACK), reply(9, ACK)]),
      reply(INFO, REP_INFO, infoExport),
      /^tsnbd: the server sent more than 64 pieces of information$/,
    ],
    [
      'exports',
      'list',
      greeting.fixed,
      concatenated(Array.from({ length: 1_000 }, (_, index) => reply(LIST, SERVER, listed(`disk-${index}`)))),
      /^tsnbd: the server's list is longer than 10000 exports or 4194304 bytes$/,
    ],
    [
      'contexts',
      'info',
      concatenated([greeting.fixed, reply(11, ACK)]),
      reply(9, 4, wire('00000000 783a79')),
      /^tsnbd: the server has more than 1000 metadata contexts$/,
    ],
  ])('that sends %s without end is left soon', async (_what, command, words, more, why) => {
    expect(await ask(command, words, repeats(more))).toEqual({ line: expect.stringMatching(why), status: 6 });
    expect(sentBytes).toBeLessThan(ENDLESS_BYTES_MAX);
  });

  test('may have an export of an odd number of bytes', async () => {
    const { line, status } = await ask('info', informed(ofBytes(1_000_001n)), stays);
    expect([line, status]).toEqual([expect.stringContaining('export-size: 1000001 '), 0]);
  });
});

function listed(name: string): Uint8Array {
  return concatenated([wire(name.length.toString(16).padStart(8, '0')), Buffer.from(name)]);
}
