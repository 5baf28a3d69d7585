import { describe, expect, it } from 'vitest';
import type { ClientGoal, ClientOutcome } from '#tsnbd/protocol/client-goal.js';
import { ClientHandshake } from '#tsnbd/protocol/client-handshake.js';
import {
  ACK,
  allContexts,
  clientFlags,
  clientFlagsZeroes,
  contextAnswers,
  describedAnswers,
  GO,
  goAnswers,
  goQuestion,
  greeting,
  INFO,
  infoAnswers,
  infoExport,
  infoName,
  LIST,
  listAnswers,
  option,
  REP_INFO,
  reply,
  SERVER,
  twoContexts,
} from './conversations.js';
import { cuttings, hex, join, wire } from './wire.js';

const go: ClientGoal = { kind: 'go', exportName: 'disk' };
const info: ClientGoal = { kind: 'info', exportName: 'disk' };
const list: ClientGoal = { kind: 'list' };

const goRich: ClientGoal = {
  ...go,
  replyStyle: 'extended',
  contexts: ['base:allocation', 'qemu:allocation-depth'],
};
const infoRich: ClientGoal = { ...info, replyStyle: 'extended', listsContexts: true };

const context = (id: number, name: string) => join([new Uint8Array([0, 0, 0, id]), Buffer.from(name)]);
const abort = option(2);
const empty = wire(`
  0000             # NBD_INFO_EXPORT
  0000000000000000 # 0 bytes
  0001             # HAS_FLAGS
`);
const exportName = option(1, wire('"disk"'));
const asked = join([clientFlags, option(GO, goQuestion)]);

interface Said {
  readonly sent: string;
  readonly outcome: ClientOutcome | undefined;
}

function feed(goal: ClientGoal, pieces: readonly Uint8Array[]): Said {
  const machine = new ClientHandshake(goal);
  const sent: Uint8Array[] = [];
  let outcome: ClientOutcome | undefined;
  for (const piece of pieces) {
    const step = machine.receive(piece);
    sent.push(step.send);
    outcome = step.outcome;
    if (outcome !== undefined && outcome.kind !== 'transmission') break;
  }
  return { sent: hex(join(sent)), outcome };
}

function failure(goal: ClientGoal, ...said: Uint8Array[]): { code: string; message: string; sent: string } {
  const { sent, outcome } = feed(goal, [join(said)]);
  if (outcome?.kind !== 'failed') throw new Error(`no failure but ${outcome?.kind}`);
  return { code: outcome.error.code, message: outcome.error.message, sent };
}

const FIXED = { fixedNewstyle: true } as const;
const SIMPLE = { replyStyle: 'simple', contexts: [] } as const;
const disk = { sizeBytes: 1_048_576, flags: 0x016d };
const blockSizes = { minimum: 1, preferred: 4096, maximumPayload: 33_554_432 };

const successes: [string, ClientGoal, Uint8Array, Uint8Array[], ClientOutcome][] = [
  [
    'a server like qemu-nbd',
    go,
    goAnswers.qemuNbd,
    [asked],
    { kind: 'transmission', ...FIXED, export: { ...disk, name: 'disk', description: 'a disk', blockSizes }, ...SIMPLE },
  ],
  [
    'a server like nbdkit',
    go,
    goAnswers.nbdkit,
    [asked],
    { kind: 'transmission', ...FIXED, export: { ...disk, blockSizes }, ...SIMPLE },
  ],
  [
    'a server like nbd-server',
    go,
    goAnswers.nbdServer,
    [asked],
    { kind: 'transmission', ...FIXED, export: disk, ...SIMPLE },
  ],
  [
    'a server that tells things from the future',
    go,
    goAnswers.unknownInformation,
    [asked],
    { kind: 'transmission', ...FIXED, export: disk, ...SIMPLE },
  ],
  [
    'a server that knows only EXPORT_NAME',
    go,
    goAnswers.fallback,
    [asked, exportName],
    { kind: 'transmission', ...FIXED, export: { sizeBytes: 1_048_576, flags: 1 }, ...SIMPLE },
  ],
  [
    'a server that knows only EXPORT_NAME and sends zeroes',
    go,
    goAnswers.fallbackZeroes,
    [clientFlagsZeroes, option(GO, goQuestion), exportName],
    { kind: 'transmission', ...FIXED, export: { sizeBytes: 1_048_576, flags: 1 }, ...SIMPLE },
  ],
  [
    'a newstyle server that is not fixed',
    go,
    goAnswers.newstyle,
    [wire('00000000'), exportName],
    { kind: 'transmission', fixedNewstyle: false, export: { sizeBytes: 1_048_576, flags: 3 }, ...SIMPLE },
  ],
  [
    'a newstyle server that is not fixed and leaves out the zeroes',
    go,
    goAnswers.newstyleNoZeroes,
    [wire('00000002'), exportName],
    { kind: 'transmission', fixedNewstyle: false, export: { sizeBytes: 1_048_576, flags: 3 }, ...SIMPLE },
  ],
  [
    'a server that is asked for information only',
    info,
    infoAnswers.known,
    [clientFlags, option(INFO, goQuestion), abort],
    { kind: 'info', export: { ...disk, description: 'a disk', blockSizes }, ...SIMPLE },
  ],
  [
    'a server that grants extended headers and contexts',
    goRich,
    contextAnswers.extended,
    [clientFlags, option(11), option(10, twoContexts), option(GO, goQuestion)],
    {
      kind: 'transmission',
      ...FIXED,
      export: { ...disk, blockSizes },
      replyStyle: 'extended',
      contexts: [
        { id: 7, name: 'base:allocation' },
        { id: 1, name: 'qemu:allocation-depth' },
      ],
    },
  ],
  [
    'a server that grants structured replies and contexts',
    goRich,
    contextAnswers.structured,
    [clientFlags, option(11), option(8), option(10, twoContexts), option(GO, goQuestion)],
    {
      kind: 'transmission',
      ...FIXED,
      export: { ...disk, blockSizes },
      replyStyle: 'structured',
      contexts: [{ id: 1, name: 'base:allocation' }],
    },
  ],
  [
    'a server that takes a context back',
    goRich,
    contextAnswers.withoutContexts,
    [clientFlags, option(11), option(8), option(10, twoContexts), option(GO, goQuestion)],
    { kind: 'transmission', ...FIXED, export: { ...disk, blockSizes }, replyStyle: 'structured', contexts: [] },
  ],
  [
    'a server that grants nothing',
    goRich,
    contextAnswers.simple,
    [clientFlags, option(11), option(8), option(GO, goQuestion)],
    { kind: 'transmission', ...FIXED, export: { ...disk, blockSizes }, ...SIMPLE },
  ],
  [
    'a server that grants structured replies and knows no GO',
    goRich,
    contextAnswers.onlyExportName,
    [clientFlags, option(11), option(8), option(10, twoContexts), option(GO, goQuestion), exportName],
    {
      kind: 'transmission',
      ...FIXED,
      export: { sizeBytes: 1_048_576, flags: 1 },
      replyStyle: 'structured',
      contexts: [],
    },
  ],
  [
    'a server that tells its contexts',
    infoRich,
    describedAnswers.extended,
    [clientFlags, option(11), option(9, allContexts), option(INFO, goQuestion), abort],
    { kind: 'info', export: disk, replyStyle: 'extended', contexts: ['base:allocation', 'qemu:dirty-bitmap:'] },
  ],
  [
    'a server that has no contexts to tell of',
    infoRich,
    describedAnswers.simple,
    [clientFlags, option(11), option(8), option(INFO, goQuestion), abort],
    { kind: 'info', export: disk, ...SIMPLE },
  ],
  [
    'a server that lists two exports',
    list,
    listAnswers.two,
    [clientFlags, option(LIST), abort],
    {
      kind: 'list',
      exports: [
        { name: 'disk', description: 'a disk' },
        { name: '', description: '' },
      ],
    },
  ],
  [
    'a server that lists nothing',
    list,
    listAnswers.none,
    [clientFlags, option(LIST), abort],
    { kind: 'list', exports: [] },
  ],
];

describe.each(successes)('with %s', (_name, goal, answers, sent, outcome) => {
  it('the negotiation succeeds in whatever pieces the bytes come', () => {
    for (const pieces of cuttings(answers)) {
      expect(feed(goal, pieces)).toEqual({ sent: hex(join(sent)), outcome });
    }
  });

  it('a connection that ends after any byte is an error in words', () => {
    for (let end = 0; end < answers.length; end += 1) {
      const machine = new ClientHandshake(goal);
      expect(machine.receive(answers.subarray(0, end)).outcome, `cut at ${end}`).toBeUndefined();
      const early = machine.end();
      expect(early.kind === 'failed' && early.error.message).toMatch(/^the server closed the connection/);
    }
  });
});

describe('after a negotiation for transmission', () => {
  it('bytes that come at once or later are an error: nothing was asked yet', () => {
    expect(failure(go, goAnswers.nbdkit, wire('00')).message).toContain('behind the end of the negotiation');
    expect(failure(go, goAnswers.newstyle, wire('00')).message).toContain('behind the end of the negotiation');
    const machine = new ClientHandshake(go);
    expect(machine.receive(goAnswers.nbdkit).outcome?.kind).toBe('transmission');
    expect(machine.receive(new Uint8Array(0)).outcome?.kind).toBe('transmission');
    expect(machine.receive(wire('00')).outcome?.kind).toBe('failed');
  });

  it('a server that closes then has not failed the negotiation', () => {
    const machine = new ClientHandshake(go);
    machine.receive(goAnswers.nbdkit);
    expect(machine.end().kind).toBe('transmission');
  });
});

describe('a server that is none, or too old', () => {
  it('is told apart', () => {
    expect(failure(go, wire('"HTTP/1.1 400 Bad Request"'))).toEqual({
      code: 'not-nbd',
      message: 'what answers there is not an NBD server (it does not begin with NBDMAGIC)',
      sent: '',
    });
    expect(failure(go, wire('4e42444d41474943 ffffffffffffffff')).code).toBe('not-nbd');
    expect(failure(go, goAnswers.oldstyle)).toEqual({
      code: 'oldstyle',
      message: 'the server only speaks the oldstyle protocol, out of use since nbd 3.10',
      sent: '',
    });
  });

  it('without fixed newstyle cannot list or inform', () => {
    expect(failure(list, greeting.newstyle)).toMatchObject({ code: 'unsupported', sent: '' });
    expect(failure(info, greeting.newstyle)).toMatchObject({ code: 'unsupported', sent: '' });
  });
});

describe('a server that refuses', () => {
  it.each([
    ['an unknown export', go, goAnswers.unknownExport, 'unknown-export', "'disk'; it says: export is not there"],
    ['a client without TLS', go, goAnswers.tlsRequired, 'tls-required', 'over TLS only'],
    ['information', info, infoAnswers.unsupported, 'unsupported', 'does not support'],
    ['a list', list, listAnswers.policy, 'policy', 'the list of its exports; it says: listing is switched off'],
  ] as const)('%s is understood and left by ABORT', (_name, goal, answers, code, words) => {
    for (const pieces of cuttings(answers)) {
      const { sent, outcome } = feed(goal, pieces);
      expect(outcome).toMatchObject({ kind: 'failed', error: { code } });
      expect(outcome?.kind === 'failed' && outcome.error.message).toContain(words);
      expect(sent.endsWith(hex(abort))).toBe(true);
    }
  });

  it('by closing after EXPORT_NAME has no such export', () => {
    const machine = new ClientHandshake(go);
    machine.receive(greeting.newstyle);
    const outcome = machine.end();
    expect(outcome).toMatchObject({ kind: 'failed', error: { code: 'unknown-export' } });
  });

  it('without a word is told apart from one that goes in the middle', () => {
    expect(new ClientHandshake(go).end()).toMatchObject({
      error: { code: 'closed', message: 'the server closed the connection without a word' },
    });
  });
});

describe('a server that breaks the protocol', () => {
  const start = greeting.fixed;

  it.each([
    ['answers another option', go, reply(INFO, ACK), 'the server answered option 6; it was asked 7'],
    ['answers with a reply of another option', go, reply(GO, SERVER), 'reply type 2'],
    ['answers with an unknown reply', list, reply(LIST, 99), 'reply type 99'],
    [
      'numbers two contexts alike',
      goRich,
      join([
        reply(11, ACK),
        reply(10, 4, context(1, 'base:allocation')),
        reply(10, 4, context(1, 'qemu:allocation-depth')),
        reply(10, ACK),
      ]),
      'the same number',
    ],
    [
      'selects a context unasked',
      goRich,
      join([reply(11, ACK), reply(10, 4, wire('00000001 78 3a 79')), reply(10, ACK)]),
      "'x:y', which nobody asked for",
    ],
    ['sends half a context', goRich, join([reply(11, ACK), reply(10, 4, wire('000001'))]), 'too short'],
    ['answers a reply style with a context', goRich, reply(11, 4, context(1, 'a:')), 'reply type 4'],
    ['accepts with data', go, reply(GO, ACK, wire('00')), 'with NBD_REP_ACK'],
    ['accepts without telling the size', go, join([reply(GO, REP_INFO, infoName), reply(GO, ACK)]), 'without saying'],
    ['loses the reply magic', go, new Uint8Array(20), 'where a reply to an option should begin'],
    ['sends a description that is not UTF-8', go, reply(GO, REP_INFO, wire('0002 ff')), 'not UTF-8'],
    ['sends flags that are none', go, reply(GO, REP_INFO, wire('0000 0000000000100000 0100')), 'without NBD_FLAG_HAS'],
    ['sends a name with a NUL', go, reply(GO, REP_INFO, wire('0001 6100')), 'NUL'],
  ])('%s', (_name, goal, answer, words) => {
    const failed = failure(goal, start, answer);
    expect(failed.code).toBe('violation');
    expect(failed.message).toContain(words);
    expect(failed.sent.endsWith(hex(abort))).toBe(false);
  });

  it('announces a huge reply, and nothing is allocated for it', () => {
    const machine = new ClientHandshake(go);
    const step = machine.receive(join([start, wire('0003e889045565a9 00000007 00000003 ffffffff')]));
    expect(step.outcome).toMatchObject({ kind: 'failed', error: { code: 'too-big' } });
    expect(machine.bufferedBytes).toBe(0);
  });

  it('may send 65,536 bytes with a reply and not one more', () => {
    const unknown = new Uint8Array(65_536).fill(0xff);
    const most = join([start, reply(GO, REP_INFO, unknown), reply(GO, REP_INFO, infoExport), reply(GO, ACK)]);
    expect(feed(go, [most]).outcome?.kind).toBe('transmission');
    expect(failure(go, start, reply(GO, REP_INFO, new Uint8Array(65_537))).code).toBe('too-big');
  });

  it('may have 1,000 contexts and not one more', () => {
    const granted = [start, reply(11, ACK)];
    const many = (count: number) => Array.from({ length: count }, () => reply(9, 4, wire('00000000 78 3a')));
    const answers = [...granted, ...many(1_000), reply(9, ACK), reply(INFO, REP_INFO, infoExport), reply(INFO, ACK)];
    expect(feed(infoRich, [join(answers)]).outcome).toMatchObject({ kind: 'info', contexts: { length: 1_000 } });
    expect(failure(infoRich, ...granted, ...many(1_001)).code).toBe('too-big');
  });

  it('may tell 64 pieces of information and not one more', () => {
    const many = (count: number) => Array.from({ length: count }, () => reply(GO, REP_INFO, infoExport));
    expect(feed(go, [join([start, ...many(64), reply(GO, ACK)])]).outcome?.kind).toBe('transmission');
    expect(failure(go, start, ...many(65)).code).toBe('too-big');
  });

  it('may list 10,000 exports and not one more', () => {
    const many = (count: number) => Array.from({ length: count }, () => reply(LIST, SERVER, wire('00000000')));
    expect(feed(list, [join([start, ...many(10_000), reply(LIST, ACK)])]).outcome?.kind).toBe('list');
    expect(failure(list, start, ...many(10_001)).code).toBe('too-big');
  });

  it('may list 4 MiB of names and not one byte more', () => {
    const big = reply(
      LIST,
      SERVER,
      join([wire('00001000'), new Uint8Array(4096).fill(0x61), new Uint8Array(4092).fill(0x62)]),
    );
    const many = Array.from({ length: 512 }, () => big);
    expect(feed(list, [join([start, ...many, reply(LIST, ACK)])]).outcome?.kind).toBe('list');
    expect(failure(list, start, ...many, reply(LIST, SERVER, wire('00000000'))).code).toBe('too-big');
  });

  it.each([
    ['an export of 0 bytes', join([reply(GO, REP_INFO, empty), reply(GO, ACK)]), 'empty'],
    ['an export of 2^63 bytes', reply(GO, REP_INFO, wire('0000 8000000000000000 0001')), '9223372036854775808'],
    ['a block size of 3', reply(GO, REP_INFO, wire('0003 00000003 00001000 02000000')), 'block size of 3'],
  ])('offers %s', (_name, answer, words) => {
    const failed = failure(go, start, answer);
    expect(failed.code).toBe('unusable-export');
    expect(failed.message).toContain(words);
  });

  it('may inform about an export of 0 bytes: nbd-server does so before it opens the file', () => {
    const answers = join([start, reply(INFO, REP_INFO, empty), reply(INFO, ACK)]);
    expect(feed(info, [answers]).outcome).toEqual({ kind: 'info', export: { sizeBytes: 0, flags: 1 }, ...SIMPLE });
  });

  it('is asked by EXPORT_NAME where GO is not wanted', () => {
    const asked = { ...go, byExportName: true } as const;
    const { sent, outcome } = feed(asked, [greeting.fixed, wire('0000000000100000 001d')]);
    expect(sent).toBe(hex(wire('00000003 49484156454f5054 00000001 00000004 6469736b')));
    expect(outcome).toMatchObject({ kind: 'transmission', export: { sizeBytes: 1_048_576, flags: 0x1d } });
  });

  it('offers an export of 0 bytes to EXPORT_NAME', () => {
    expect(failure(go, greeting.newstyleNoZeroes, wire('0000000000000000 0001')).code).toBe('unusable-export');
  });
});

describe('a name', () => {
  it('that cannot be sent is refused before anything is', () => {
    expect(() => new ClientHandshake({ kind: 'go', exportName: 'x'.repeat(4097) })).toThrow('4097 bytes long');
    expect(() => new ClientHandshake({ kind: 'info', exportName: 'a\0b' })).toThrow('NUL');
    expect(new ClientHandshake({ kind: 'go', exportName: 'x'.repeat(4096) }).stateName).toBe('INIT_MAGIC');
  });
});
