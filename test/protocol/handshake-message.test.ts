import { describe, expect, test } from 'vitest';
import type { ClientGoal } from '#tsnbd/protocol/client-goal.js';
import { ClientHandshake } from '#tsnbd/protocol/client-handshake.js';
import { type HandshakeMessage, messageInWords } from '#tsnbd/protocol/handshake-message.js';
import { ServerHandshake } from '#tsnbd/protocol/server-handshake.js';
import {
  clientFlags,
  clientSides,
  contextAnswers,
  greeting,
  LIST,
  listAnswers,
  option,
  reply,
} from './conversations.js';
import { cuttings, join, wire } from './wire.js';

const goRich: ClientGoal = { kind: 'go', exportName: 'disk', replyStyle: 'extended', contexts: ['base:allocation'] };

/** What is told of a negotiation in which the server says `answers`. */
function told(goal: ClientGoal, answers: Uint8Array): readonly string[] {
  const lines: string[] = [];
  new ClientHandshake(goal, { onMessage: (message) => lines.push(messageInWords(message, 'client')) }).receive(answers);
  return lines;
}

test('each message is told in its turn, by its name', () => {
  expect(told(goRich, contextAnswers.onlyExportName)).toEqual([
    '< NBDMAGIC IHAVEOPT, handshake flags 0x3',
    '> client flags 0x3',
    '> NBD_OPT_EXTENDED_HEADERS, 0 bytes',
    '< NBD_REP_ERR_UNSUP to NBD_OPT_EXTENDED_HEADERS, 56 bytes',
    '> NBD_OPT_STRUCTURED_REPLY, 0 bytes',
    '< NBD_REP_ACK to NBD_OPT_STRUCTURED_REPLY, 0 bytes',
    '> NBD_OPT_SET_META_CONTEXT, 31 bytes',
    '< NBD_REP_ACK to NBD_OPT_SET_META_CONTEXT, 0 bytes',
    '> NBD_OPT_GO, 16 bytes',
    '< NBD_REP_ERR_UNSUP to NBD_OPT_GO, 0 bytes',
    '> NBD_OPT_EXPORT_NAME, 4 bytes',
    '< answer to NBD_OPT_EXPORT_NAME, 10 bytes',
  ]);
});

test('a client that only asks takes its leave', () => {
  const lines = told({ kind: 'list' }, Object.values(listAnswers)[0] ?? greeting.fixed);
  expect(lines.at(2)).toBe('> NBD_OPT_LIST, 0 bytes');
  expect(lines.at(3)).toMatch(/^< NBD_REP_SERVER to NBD_OPT_LIST, [0-9]+ bytes$/);
  expect(lines.at(-1)).toBe('> NBD_OPT_ABORT, 0 bytes');
});

test('a reply that no question asked for is told too, and numbers that have no name as they are', () => {
  const nonsense = join([greeting.fixed, reply(0xff, 0x80001234), reply(LIST, 1)]);
  expect(told({ kind: 'go', exportName: '' }, nonsense).at(-1)).toBe('< reply type 0x80001234 to option 255, 0 bytes');
  const other = join([greeting.fixed, reply(LIST, 9)]);
  expect(told({ kind: 'go', exportName: '' }, other).at(-1)).toBe('< reply type 0x9 to NBD_OPT_LIST, 0 bytes');
});

describe('a server', () => {
  const disk = {
    name: 'disk',
    description: 'a disk',
    sizeBytes: 1_048_576,
    flags: 0x016d,
    contexts: ['base:allocation'],
  };
  /** What is told of a negotiation in which the client says `words`, in whatever pieces they come. */
  const toldOf = (words: Uint8Array): readonly string[] => {
    const find = (name: string) => (name === 'disk' ? disk : undefined);
    const told = cuttings(words).map((pieces) => {
      const lines: string[] = [];
      const onMessage = (message: HandshakeMessage) => lines.push(messageInWords(message, 'server'));
      const machine = new ServerHandshake({ find, list: () => [disk, disk] }, { onMessage });
      machine.start();
      for (const piece of pieces) if (machine.receive(piece).outcome !== undefined) break;
      return lines;
    });
    for (const lines of told) expect(lines).toEqual(told[0]);
    return told[0]?.slice(1) ?? [];
  };

  test('tells what it hears and each of its replies, by their names', () => {
    expect(toldOf(clientSides.libnbd)).toEqual([
      '< client flags 0x3',
      '< NBD_OPT_EXTENDED_HEADERS, 0 bytes',
      '> NBD_REP_ACK to NBD_OPT_EXTENDED_HEADERS, 0 bytes',
      '< NBD_OPT_STRUCTURED_REPLY, 0 bytes',
      '> NBD_REP_ERR_EXT_HEADER_REQD to NBD_OPT_STRUCTURED_REPLY, 39 bytes',
      '< NBD_OPT_SET_META_CONTEXT, 31 bytes',
      '> NBD_REP_META_CONTEXT to NBD_OPT_SET_META_CONTEXT, 19 bytes',
      '> NBD_REP_ACK to NBD_OPT_SET_META_CONTEXT, 0 bytes',
      '< NBD_OPT_GO, 16 bytes',
      '> NBD_REP_INFO to NBD_OPT_GO, 12 bytes',
      '> NBD_REP_INFO to NBD_OPT_GO, 6 bytes',
      '> NBD_REP_INFO to NBD_OPT_GO, 8 bytes',
      '> NBD_REP_INFO to NBD_OPT_GO, 14 bytes',
      '> NBD_REP_ACK to NBD_OPT_GO, 0 bytes',
    ]);
    expect(toldOf(clientSides.list).slice(1)).toEqual([
      '< NBD_OPT_LIST, 0 bytes',
      '> NBD_REP_SERVER to NBD_OPT_LIST, 14 bytes',
      '> NBD_REP_SERVER to NBD_OPT_LIST, 14 bytes',
      '> NBD_REP_ACK to NBD_OPT_LIST, 0 bytes',
      '< NBD_OPT_ABORT, 0 bytes',
      '> NBD_REP_ACK to NBD_OPT_ABORT, 0 bytes',
    ]);
  });

  test('tells of the answer to EXPORT_NAME, which has no header, as it is sent', () => {
    expect(toldOf(clientSides.exportName).at(-1)).toBe('> answer to NBD_OPT_EXPORT_NAME, 10 bytes');
    expect(toldOf(clientSides.exportNameZeroes).at(-1)).toBe('> answer to NBD_OPT_EXPORT_NAME, 134 bytes');
    expect(toldOf(clientSides.exportNameUnknown).at(-1)).toBe('< NBD_OPT_EXPORT_NAME, 7 bytes');
  });

  test('tells what it does not know as it is, and what it refuses', () => {
    const unknown = join([clientFlags, option(99), wire('49484156454f5054 00000007 ffffffff')]);
    expect(toldOf(unknown).slice(1)).toEqual([
      '< option 99, 0 bytes',
      '> NBD_REP_ERR_UNSUP to option 99, 36 bytes',
      '< NBD_OPT_GO, 4294967295 bytes',
      expect.stringMatching(/^> NBD_REP_ERR_TOO_BIG to NBD_OPT_GO, [0-9]+ bytes$/),
    ]);
  });
});
