import { expect, test } from 'vitest';
import type { ClientGoal } from '#tsnbd/protocol/client-goal.js';
import { ClientHandshake } from '#tsnbd/protocol/client-handshake.js';
import { messageInWords } from '#tsnbd/protocol/handshake-message.js';
import { contextAnswers, greeting, LIST, listAnswers, reply } from './conversations.js';
import { join } from './wire.js';

const goRich: ClientGoal = { kind: 'go', exportName: 'disk', replyStyle: 'extended', contexts: ['base:allocation'] };

/** What is told of a negotiation in which the server says `answers`. */
function told(goal: ClientGoal, answers: Uint8Array): readonly string[] {
  const lines: string[] = [];
  new ClientHandshake(goal, { onMessage: (message) => lines.push(messageInWords(message)) }).receive(answers);
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
