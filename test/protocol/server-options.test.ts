import { describe, expect, it } from 'vitest';
import type { ExportInfo } from '#tsnbd/protocol/export-info.js';
import {
  type ExportDirectory,
  ServerHandshake,
  type ServerHandshakeOptions,
} from '#tsnbd/protocol/server-handshake.js';
import {
  ACK,
  clientFlags,
  clientSides,
  contextQuestion,
  GO,
  goQuestion,
  greeting,
  INFO,
  infoBlockSize,
  infoDescription,
  infoExport,
  infoName,
  LIST,
  option,
  REP_INFO,
  reply,
} from './conversations.js';
import { directory } from './converse.js';
import { cuttings, hex, join, wire } from './wire.js';

const [EXPORT_NAME, ABORT, STARTTLS, STRUCTURED, LIST_CONTEXTS, SET_CONTEXTS, EXTENDED] = [1, 2, 5, 8, 9, 10, 11];
const REP_META_CONTEXT = 4;
const [UNSUP, INVALID, UNKNOWN, SHUTDOWN, EXT_HEADER_REQD] = [1, 3, 6, 7, 10].map((low) => 0x80000000 + low);
const TOO_BIG = 0x80000009;

const disk: ExportInfo = {
  name: 'disk',
  description: 'a disk',
  sizeBytes: 1_048_576,
  flags: 0x016d,
  contexts: ['base:allocation'],
};
const other: ExportInfo = { name: 'other', sizeBytes: 512, flags: 1, contexts: ['base:allocation'] };
const bare: ExportInfo = { name: 'bare', sizeBytes: 512, flags: 1 };
const exports: ExportDirectory = directory(disk, other, bare);
const allocation = { id: 1, name: 'base:allocation' };

/** What the server says to `options` behind the client's flags, without its greeting, and how it ends. */
function negotiate(options: readonly Uint8Array[], settings: ServerHandshakeOptions = {}) {
  const machine = new ServerHandshake(exports, settings);
  machine.start();
  const { send, outcome } = machine.receive(join([clientFlags, ...options]));
  return { sent: hex(send), types: replyTypes(send), outcome };
}

/** The type of each reply, without those that carry information. */
function replyTypes(sent: Uint8Array): number[] {
  const view = new DataView(sent.buffer, sent.byteOffset, sent.byteLength);
  const types: number[] = [];
  for (let at = 0; at + 20 <= sent.length; at += 20 + view.getUint32(at + 16)) types.push(view.getUint32(at + 12));
  return types.filter((type) => type !== REP_INFO && type !== REP_META_CONTEXT);
}

/** The data of the options on metadata contexts. */
function contexts(exportName: string, ...queries: string[]): Uint8Array {
  const u32 = (value: number) => wire(value.toString(16).padStart(8, '0'));
  const text = (value: string) => join([u32(Buffer.byteLength(value)), Buffer.from(value)]);
  return join([text(exportName), u32(queries.length), ...queries.map(text)]);
}

function goFor(exportName: string): Uint8Array {
  const length = exportName.length.toString(16).padStart(8, '0');
  return option(GO, join([wire(length), Buffer.from(exportName), wire('0000')]));
}

const contextReply = (to: number, id: string) =>
  reply(to, REP_META_CONTEXT, join([wire(id), wire('"base:allocation"')]));
const informed = (to: number) =>
  join([
    reply(to, REP_INFO, wire('0000 0000000000100000 01ed # the flags with SEND_DF')),
    reply(to, REP_INFO, infoName),
    reply(to, REP_INFO, infoDescription),
    reply(to, REP_INFO, infoBlockSize),
    reply(to, ACK),
  ]);

describe('a client that negotiates replies in chunks', () => {
  const tlsRefused = reply(STARTTLS, 0x80000001, wire('"this server does not speak TLS"'));
  const cases = [
    [
      'structured',
      clientSides.structured,
      join([
        tlsRefused,
        reply(STRUCTURED, ACK),
        contextReply(LIST_CONTEXTS, '00000000'),
        reply(LIST_CONTEXTS, ACK),
        contextReply(SET_CONTEXTS, '00000001'),
        reply(SET_CONTEXTS, ACK),
        informed(INFO),
        informed(GO),
      ]),
    ],
    [
      'extended',
      clientSides.extended,
      join([
        reply(STRUCTURED, ACK),
        reply(EXTENDED, ACK),
        contextReply(SET_CONTEXTS, '00000001'),
        reply(SET_CONTEXTS, ACK),
        informed(GO),
      ]),
    ],
  ] as const;

  it.each(cases)('%s is answered in whatever pieces its bytes come', (replyStyle, client, answer) => {
    for (const pieces of cuttings(client)) {
      const machine = new ServerHandshake(exports);
      const steps = pieces.map((piece) => machine.receive(piece));
      expect(hex(join([machine.start(), ...steps.map(({ send }) => send)]))).toBe(hex(join([greeting.fixed, answer])));
      expect(steps.at(-1)?.outcome).toMatchObject({
        kind: 'transmission',
        exportName: 'disk',
        flags: 0x01ed,
        replyStyle,
        contexts: [allocation],
      });
    }
  });

  it.each(cases)('%s and closes after any byte is gone in words', (_style, client) => {
    for (let end = 0; end < client.length; end += 1) {
      const machine = new ServerHandshake(exports);
      expect(machine.receive(client.subarray(0, end)).outcome).toBeUndefined();
      expect(machine.end()).toMatchObject({ kind: 'closed', reason: { code: 'closed' } });
    }
  });

  it('and none is understood as before', () => {
    const { sent, outcome } = negotiate([option(GO, goQuestion)]);
    expect(sent).toContain(hex(reply(GO, REP_INFO, infoExport)));
    expect(outcome).toMatchObject({ flags: 0x016d, replyStyle: 'simple', contexts: [] });
  });

  it('may leave structured replies out before extended headers', () => {
    const { types, outcome } = negotiate([option(EXTENDED), goFor('disk')]);
    expect(types).toEqual([ACK, ACK]);
    expect(outcome).toMatchObject({ replyStyle: 'extended' });
  });

  it('is told that data have no place there, and nothing is changed', () => {
    for (const number of [STRUCTURED, EXTENDED, STARTTLS, LIST]) {
      const { types, outcome } = negotiate([option(number, wire('00')), goFor('disk')]);
      expect(types).toEqual([INVALID, ACK]);
      expect(outcome).toMatchObject({ replyStyle: 'simple' });
    }
  });

  it('cannot go back from extended headers', () => {
    const { types, outcome } = negotiate([option(EXTENDED), option(STRUCTURED), goFor('disk')]);
    expect(types).toEqual([ACK, EXT_HEADER_REQD, ACK]);
    expect(outcome).toMatchObject({ replyStyle: 'extended' });
  });

  it('may repeat itself', () => {
    expect(negotiate([option(STRUCTURED), option(STRUCTURED)]).types).toEqual([ACK, ACK]);
    expect(negotiate([option(EXTENDED), option(EXTENDED)]).types).toEqual([ACK, ACK]);
  });

  it('gets SEND_DF by EXPORT_NAME too, and its contexts', () => {
    const set = option(SET_CONTEXTS, contextQuestion);
    const { sent, outcome } = negotiate([option(STRUCTURED), set, option(EXPORT_NAME, wire('"disk"'))]);
    expect(sent.endsWith('000000000010000001ed')).toBe(true);
    expect(outcome).toMatchObject({ flags: 0x01ed, replyStyle: 'structured', contexts: [allocation] });
  });

  it('is left when it asks for extended headers and then by EXPORT_NAME', () => {
    const { sent, outcome } = negotiate([option(EXTENDED), option(EXPORT_NAME, wire('"disk"'))]);
    expect(sent).toBe(hex(reply(EXTENDED, ACK)));
    expect(outcome).toMatchObject({ kind: 'closed', reason: { code: 'violation' } });
  });

  it('meets a server that goes less far like one that does not know the option', () => {
    const asked = [option(EXTENDED), option(STRUCTURED), option(LIST_CONTEXTS, contextQuestion)];
    const all = [...asked, option(SET_CONTEXTS, contextQuestion), goFor('disk')];
    const simple = negotiate(all, { replyStyleMax: 'simple' });
    expect(simple.types).toEqual([UNSUP, UNSUP, UNSUP, UNSUP, ACK]);
    expect(simple.outcome).toMatchObject({ replyStyle: 'simple', contexts: [], flags: 0x016d });
    const structured = negotiate(all, { replyStyleMax: 'structured' });
    expect(structured.types).toEqual([UNSUP, ACK, ACK, ACK, ACK]);
    expect(structured.outcome).toMatchObject({ replyStyle: 'structured', contexts: [allocation] });
  });
});

describe('metadata contexts', () => {
  const listed = (data: Uint8Array) => negotiate([option(STRUCTURED), option(LIST_CONTEXTS, data)]).sent;
  const selected = (...options: Uint8Array[]) => negotiate([option(STRUCTURED), ...options, goFor('disk')]).outcome;

  it.each([
    ['no query', []],
    ['the namespace', ['base:']],
    ['the name', ['base:allocation']],
    [
      'both, and others that are not known',
      ['base:dirty', 'x-y:z', 'base:', 'base:allocation', 'qemu:', 'nonsense', ''],
    ],
  ])('are listed once for %s, without an id', (_name, queries) => {
    expect(listed(contexts('disk', ...queries))).toBe(
      hex(join([reply(STRUCTURED, ACK), contextReply(LIST_CONTEXTS, '00000000'), reply(LIST_CONTEXTS, ACK)])),
    );
  });

  it.each([
    ['a query for others', 'disk', ['base:dirty', 'qemu:allocation-depth', 'x:', '', ':']],
    ['a name that only begins alike', 'disk', ['base:alloc', 'base', 'base:allocation:']],
    ['an export that has none', 'bare', []],
  ])('are not listed for %s', (_name, exportName, queries) => {
    expect(listed(contexts(exportName, ...queries))).toBe(
      hex(join([reply(STRUCTURED, ACK), reply(LIST_CONTEXTS, ACK)])),
    );
  });

  it('are selected by their whole names, each once', () => {
    for (const queries of [['base:allocation'], ['x:y', 'base:allocation', 'base:allocation']]) {
      const { sent, outcome } = negotiate([
        option(STRUCTURED),
        option(SET_CONTEXTS, contexts('disk', ...queries)),
        goFor('disk'),
      ]);
      expect(sent).toContain(hex(join([contextReply(SET_CONTEXTS, '00000001'), reply(SET_CONTEXTS, ACK)])));
      expect(outcome).toMatchObject({ contexts: [allocation] });
    }
  });

  it('are not selected without a query, by a namespace, or by a name not known', () => {
    for (const queries of [[], ['base:'], ['base:dirty', 'qemu:', '']]) {
      const { sent, types, outcome } = negotiate([
        option(STRUCTURED),
        option(SET_CONTEXTS, contexts('disk', ...queries)),
        goFor('disk'),
      ]);
      expect(sent).not.toContain(hex(wire('"base:allocation"')));
      expect(types).toEqual([ACK, ACK, ACK]);
      expect(outcome).toMatchObject({ contexts: [] });
    }
  });

  it('need replies in chunks, negotiated before', () => {
    for (const number of [LIST_CONTEXTS, SET_CONTEXTS]) {
      const { types, outcome } = negotiate([option(number, contextQuestion), option(STRUCTURED), goFor('disk')]);
      expect(types).toEqual([INVALID, ACK, ACK]);
      expect(outcome).toMatchObject({ contexts: [] });
      expect(negotiate([option(EXTENDED), option(number, contextQuestion)]).types).toEqual([ACK, ACK]);
    }
  });

  it('hold for the export that they were selected for, and for no other', () => {
    expect(selected(option(SET_CONTEXTS, contexts('disk', 'base:allocation')))).toMatchObject({
      contexts: [allocation],
    });
    expect(selected(option(SET_CONTEXTS, contexts('other', 'base:allocation')))).toMatchObject({ contexts: [] });
    const asked = option(INFO, join([wire('00000005'), Buffer.from('other'), wire('0000')]));
    expect(selected(option(SET_CONTEXTS, contextQuestion), asked)).toMatchObject({ contexts: [allocation] });
  });

  it.each([
    ['succeeds', contexts('disk'), ACK],
    ['asks for another export', contexts('other', 'base:allocation'), ACK],
    ['asks for what is not there', contexts('nowhere', 'base:allocation'), UNKNOWN],
    ['has lengths that do not add up', contextQuestion.subarray(0, 20), INVALID],
    ['is empty', new Uint8Array(0), INVALID],
  ])('are gone with the next selection, also when it %s', (_name, data, type) => {
    const { types, outcome } = negotiate([
      option(STRUCTURED),
      option(SET_CONTEXTS, contextQuestion),
      option(SET_CONTEXTS, data),
      goFor('disk'),
    ]);
    expect(types).toEqual([ACK, ACK, type, ACK]);
    expect(outcome).toMatchObject({ contexts: [] });
  });

  it('stay while others are listed, and while TLS is refused', () => {
    const list = option(LIST_CONTEXTS, contexts('other'));
    expect(selected(option(SET_CONTEXTS, contextQuestion), list, option(STARTTLS))).toMatchObject({
      contexts: [allocation],
      replyStyle: 'structured',
    });
  });

  it.each([
    ['an unknown export', contexts('nowhere'), UNKNOWN],
    [
      'a query longer than the data',
      join([contextQuestion.subarray(0, 12), wire('00000010'), wire('"base:allocation"')]),
      INVALID,
    ],
    ['more queries than it says', join([contexts('disk'), wire('00')]), INVALID],
    [
      'fewer queries than it says',
      join([contextQuestion.subarray(0, 8), wire('00000002'), contextQuestion.subarray(12)]),
      INVALID,
    ],
    ['4 billion queries', join([contextQuestion.subarray(0, 8), wire('ffffffff')]), INVALID],
    ['a query that is not UTF-8', join([contextQuestion.subarray(0, 12), wire('00000001 ff')]), INVALID],
    ['a query with a NUL', join([contextQuestion.subarray(0, 12), wire('00000001 00')]), INVALID],
    ['a query of 4,097 bytes', contexts('disk', 'x'.repeat(4097)), TOO_BIG],
  ])('are refused for %s, and the client may go on', (_name, data, type) => {
    for (const number of [LIST_CONTEXTS, SET_CONTEXTS]) {
      const { types, outcome } = negotiate([option(STRUCTURED), option(number, data), goFor('disk')]);
      expect(types).toEqual([ACK, type, ACK]);
      expect(outcome?.kind).toBe('transmission');
    }
  });

  it('are taken with as many queries as an option carries', () => {
    const many = contexts('disk', ...Array.from({ length: 10_000 }, () => 'x'), 'base:allocation');
    expect(negotiate([option(STRUCTURED), option(SET_CONTEXTS, many), goFor('disk')]).outcome).toMatchObject({
      contexts: [allocation],
    });
  });
});

describe('TLS', () => {
  it('is not there, and the client may go on without', () => {
    expect(negotiate([option(STARTTLS), option(ABORT)]).types).toEqual([UNSUP, ACK]);
  });
});

describe('a server that is about to end', () => {
  const isClosing = () => true;

  it('says so to every option but ABORT', () => {
    for (const number of [LIST, STARTTLS, INFO, GO, STRUCTURED, LIST_CONTEXTS, SET_CONTEXTS, EXTENDED, 99]) {
      const data = number === GO || number === INFO ? goQuestion : new Uint8Array(0);
      const { types, outcome } = negotiate([option(number, data), option(ABORT, wire('"bye"'))], { isClosing });
      expect(types).toEqual([SHUTDOWN, ACK]);
      expect(outcome).toMatchObject({ reason: { code: 'aborted' } });
    }
  });

  it('closes when it is asked by EXPORT_NAME, which has no error', () => {
    const { sent, outcome } = negotiate([option(EXPORT_NAME, wire('"disk"'))], { isClosing });
    expect(sent).toBe('');
    expect(outcome).toMatchObject({ kind: 'closed', reason: { code: 'shutdown' } });
  });

  it('says so from the moment on', () => {
    let closing = false;
    const machine = new ServerHandshake(exports, { isClosing: () => closing });
    const ask = (bytes: Uint8Array) => replyTypes(machine.receive(bytes).send);
    const question = option(GO, goQuestion);
    expect(ask(join([clientFlags, option(LIST)]))).toContain(ACK);
    expect(ask(question.subarray(0, 20))).toEqual([]);
    closing = true;
    expect(ask(question.subarray(20))).toEqual([SHUTDOWN]);
  });
});
