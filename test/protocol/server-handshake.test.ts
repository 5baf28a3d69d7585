import { describe, expect, it } from 'vitest';
import type { ExportInfo } from '#tsnbd/protocol/export-info.js';
import { type ExportDirectory, ServerHandshake, type ServerOutcome } from '#tsnbd/protocol/server-handshake.js';
import {
  ACK,
  clientFlags,
  clientSides,
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
  SERVER,
} from './conversations.js';
import { cuttings, hex, join, wire } from './wire.js';

const disk: ExportInfo = {
  name: 'disk',
  description: 'a disk',
  sizeBytes: 1_048_576,
  flags: 0x016d,
  blockSizes: { minimum: 1, preferred: 4096, maximumPayload: 33_554_432 },
};

function directory(...exports: ExportInfo[]): ExportDirectory {
  return { find: (name) => exports.find((one) => one.name === name), list: () => exports };
}

function feed(pieces: readonly Uint8Array[], exports = directory(disk)) {
  const machine = new ServerHandshake(exports);
  const sent: Uint8Array[] = [machine.start()];
  const received: Uint8Array[] = [];
  let outcome: ServerOutcome | undefined;
  for (const piece of pieces) {
    if (outcome !== undefined) {
      received.push(piece);
      continue;
    }
    const step = machine.receive(piece);
    sent.push(step.send);
    outcome = step.outcome;
    if (outcome?.kind === 'transmission') received.push(outcome.received);
  }
  return { sent: hex(join(sent)), outcome, received: hex(join(received)), machine };
}

function refusalTypes(sent: string): number[] {
  return Array.from(sent.matchAll(/0003e889045565a9.{8}(8.{7})/g), (match) => Number.parseInt(match[1] ?? '', 16));
}

const allInformation = (to: number) =>
  join([
    reply(to, REP_INFO, infoExport),
    reply(to, REP_INFO, infoName),
    reply(to, REP_INFO, infoDescription),
    reply(to, REP_INFO, infoBlockSize),
    reply(to, ACK),
  ]);

const sizeAndFlags = wire(`
  0000000000100000 # 1 MiB
  016d             # HAS_FLAGS FLUSH FUA TRIM WRITE_ZEROES MULTI_CONN
`);
const listing = join([
  reply(
    LIST,
    SERVER,
    wire(`
      00000004 # length of the name
      "disk"
      "a disk"
    `),
  ),
  reply(LIST, ACK),
]);

describe.each([
  ['GO', clientSides.go, allInformation(GO), 'transmission'],
  // proto.md, 'NBD_OPT_GO': the 124 zeroes are EXPORT_NAME's alone, whatever was agreed on them.
  ['GO without NO_ZEROES', clientSides.goZeroes, allInformation(GO), 'transmission'],
  ['GO and a request at once', clientSides.goAndRequest, allInformation(GO), 'transmission'],
  ['INFO and ABORT', clientSides.info, join([allInformation(INFO), reply(2, ACK)]), 'closed'],
  [
    'INFO twice and ABORT',
    clientSides.infoTwice,
    join([allInformation(INFO), allInformation(INFO), reply(2, ACK)]),
    'closed',
  ],
  ['INFO and GO', clientSides.infoThenGo, join([allInformation(INFO), allInformation(GO)]), 'transmission'],
  [
    'INFO and GO without NO_ZEROES',
    clientSides.infoThenGoZeroes,
    join([allInformation(INFO), allInformation(GO)]),
    'transmission',
  ],
  ['LIST and ABORT', clientSides.list, join([listing, reply(2, ACK)]), 'closed'],
  ['EXPORT_NAME', clientSides.exportName, sizeAndFlags, 'transmission'],
  [
    'EXPORT_NAME without NO_ZEROES',
    clientSides.exportNameZeroes,
    join([sizeAndFlags, new Uint8Array(124)]),
    'transmission',
  ],
])('a client that sends %s', (_name, client, answer, kind) => {
  it('is answered in whatever pieces its bytes come', () => {
    for (const pieces of cuttings(client)) {
      const { sent, outcome, received } = feed(pieces);
      expect(sent).toBe(hex(join([greeting.fixed, answer])));
      expect(outcome?.kind).toBe(kind);
      expect(received).toBe(client === clientSides.goAndRequest ? '2560951300000000' : '');
    }
  });

  it('and closes after any byte is gone in words', () => {
    for (let end = 0; end < client.length; end += 1) {
      const { machine, outcome } = feed([client.subarray(0, end)]);
      if (outcome !== undefined) continue;
      expect(machine.end()).toMatchObject({ kind: 'closed', reason: { code: 'closed' } });
    }
  });
});

describe('a client that asks for what is not there', () => {
  it('by GO is told and may go on', () => {
    const { sent, outcome } = feed([clientSides.unknownExport]);
    expect(refusalTypes(sent)).toEqual([0x80000006]);
    expect(outcome).toMatchObject({ kind: 'closed', reason: { code: 'aborted' } });
  });

  it('by EXPORT_NAME is left without an answer', () => {
    const { sent, outcome } = feed([clientSides.exportNameUnknown]);
    expect(sent).toBe(hex(greeting.fixed));
    expect(outcome).toMatchObject({ kind: 'closed', reason: { code: 'unknown-export' } });
  });
});

describe('an option that is not for us', () => {
  it('is unsupported, its data read, and the next one understood', () => {
    for (const pieces of cuttings(join([clientFlags, option(0xffffffff, wire('"x"')), option(GO, goQuestion)]))) {
      const { sent, outcome } = feed(pieces);
      expect(refusalTypes(sent)).toEqual([0x80000001]);
      expect(outcome?.kind).toBe('transmission');
    }
    for (const number of [0, 4, 12, 99]) {
      expect(refusalTypes(feed([join([clientFlags, option(number)])]).sent)).toEqual([0x80000001]);
    }
  });

  it('may carry 65,536 bytes; one more is too big and ends the connection', () => {
    const most = feed([join([clientFlags, option(99, new Uint8Array(65_536)), option(2)])]);
    expect(refusalTypes(most.sent)).toEqual([0x80000001]);
    expect(most.outcome).toMatchObject({ reason: { code: 'aborted' } });
    const more = feed([join([clientFlags, option(99, new Uint8Array(65_537))])]);
    expect(refusalTypes(more.sent)).toEqual([0x80000009]);
    expect(more.outcome).toMatchObject({ kind: 'closed', reason: { code: 'too-big' } });
  });

  it('that announces 4 GiB takes no memory', () => {
    const { machine, outcome, sent } = feed([join([clientFlags, wire('49484156454f5054 00000001 ffffffff')])]);
    expect(outcome).toMatchObject({ kind: 'closed', reason: { code: 'too-big' } });
    expect(sent).toBe(hex(greeting.fixed));
    expect(machine.bufferedBytes).toBe(0);
  });
});

describe('a client out of bounds', () => {
  it('may send 32 options and not one more', () => {
    const many = (count: number) => join([clientFlags, ...Array.from({ length: count }, () => option(99))]);
    expect(feed([join([many(31), option(GO, goQuestion)])]).outcome?.kind).toBe('transmission');
    const { sent, outcome } = feed([many(33)]);
    expect(refusalTypes(sent)).toHaveLength(32);
    expect(outcome).toMatchObject({ kind: 'closed', reason: { code: 'too-big' } });
  });

  it('with unknown flags is left', () => {
    for (const flags of ['00000004', '80000003', 'ffffffff']) {
      expect(feed([wire(flags)]).outcome).toMatchObject({ kind: 'closed', reason: { code: 'violation' } });
    }
  });

  it('without the magic of an option is left', () => {
    const { outcome } = feed([join([clientFlags, wire('25609513 0000 0002 0000000000000000')])]);
    expect(outcome).toMatchObject({ kind: 'closed', reason: { code: 'violation' } });
  });

  it('is told that LIST takes no data', () => {
    const { sent, outcome } = feed([clientSides.listWithData]);
    expect(refusalTypes(sent)).toEqual([0x80000003]);
    expect(outcome).toMatchObject({ reason: { code: 'aborted' } });
  });

  it.each([
    ['cut', wire('00000004 6469'), 0x80000003],
    ['with a name longer than its data', wire('00000005 6469736b 0000'), 0x80000003],
    ['with a name that is not UTF-8', wire('00000001 ff 0000'), 0x80000003],
    ['with a NUL in the name', wire('00000001 00 0000'), 0x80000003],
    ['with fewer information types than it says', wire('00000000 0001'), 0x80000003],
    ['with data behind it', wire('00000000 0000 00'), 0x80000003],
    ['with a name of 4,097 bytes', join([wire('00001001'), new Uint8Array(4097).fill(0x61), wire('0000')]), 0x80000009],
  ])('is told of a question %s, and may ask again', (_name, data, type) => {
    for (const number of [INFO, GO]) {
      const { sent, outcome } = feed([join([clientFlags, option(number, data), option(GO, goQuestion)])]);
      expect(refusalTypes(sent)).toEqual([type]);
      expect(outcome?.kind).toBe('transmission');
    }
  });

  it.each([
    ['not UTF-8', wire('ff')],
    ['4,097 bytes long', new Uint8Array(4097).fill(0x61)],
  ])('with an EXPORT_NAME %s is left', (_name, name) => {
    expect(feed([join([clientFlags, option(1, name)])]).outcome?.kind).toBe('closed');
  });

  it('that aborts with data is acknowledged all the same', () => {
    const { sent, outcome } = feed([join([clientFlags, option(2, wire('"bye"'))])]);
    expect(sent).toBe(hex(join([greeting.fixed, reply(2, ACK)])));
    expect(outcome).toMatchObject({ reason: { code: 'aborted' } });
  });
});

describe('what is told of an export', () => {
  const question = (exportName: string, ...types: string[]) => {
    const length = exportName.length.toString(16).padStart(8, '0');
    const count = types.length.toString(16).padStart(4, '0');
    return join([wire(length), Buffer.from(exportName), wire(count), ...types.map((type) => wire(type))]);
  };

  it('is size and flags at least, the rest if it is asked for, unknown wishes ignored', () => {
    expect(feed([join([clientFlags, option(GO, question('disk'))])]).sent).toBe(
      hex(join([greeting.fixed, reply(GO, REP_INFO, infoExport), reply(GO, ACK)])),
    );
    expect(feed([join([clientFlags, option(GO, question('disk', '0fff', '0001', '0000'))])]).sent).toBe(
      hex(join([greeting.fixed, reply(GO, REP_INFO, infoExport), reply(GO, REP_INFO, infoName), reply(GO, ACK)])),
    );
  });

  it('includes the block sizes if they are asked for, the defaults where the export has none of its own', () => {
    const bare = { name: 'disk', sizeBytes: 1_048_576, flags: 0x016d };
    const { sent } = feed([join([clientFlags, option(GO, question('disk', '0003'))])], directory(bare));
    expect(sent).toBe(
      hex(join([greeting.fixed, reply(GO, REP_INFO, infoExport), reply(GO, REP_INFO, infoBlockSize), reply(GO, ACK)])),
    );
    expect(feed([join([clientFlags, option(GO, question('disk'))])], directory(bare)).sent).not.toContain(
      hex(infoBlockSize),
    );
  });

  it('is the server’s own name where a default export has one', () => {
    const exports: ExportDirectory = { find: () => disk, list: () => [disk] };
    const { sent, outcome } = feed([join([clientFlags, option(GO, question('', '0001'))])], exports);
    expect(sent).toContain(hex(reply(GO, REP_INFO, infoName)));
    expect(outcome).toMatchObject({ exportName: '' });
  });

  it('is the name that was asked for where it has none of its own', () => {
    const exports: ExportDirectory = { find: () => ({ sizeBytes: 512, flags: 1 }), list: () => [] };
    const { sent } = feed([join([clientFlags, option(GO, question('disk', '0001'))])], exports);
    expect(sent).toContain(hex(reply(GO, REP_INFO, infoName)));
  });

  it('is not made up when the exports fail: that is no fault of the client', () => {
    const exports: ExportDirectory = {
      find: () => {
        throw new RangeError('a bug');
      },
      list: () => [],
    };
    expect(() => feed([clientSides.go], exports)).toThrow('a bug');
  });

  it('includes, unasked, block sizes that are stricter than the defaults', () => {
    const strict = { ...disk, blockSizes: { minimum: 512, preferred: 4096, maximumPayload: 33_554_432 } };
    const { sent } = feed([join([clientFlags, option(GO, question('disk'))])], directory(strict));
    expect(sent).toContain(hex(reply(GO, REP_INFO, wire('0003 00000200 00001000 02000000'))));
  });

  it('lists an export without description by its name alone', () => {
    const bare = { name: 'bare', sizeBytes: 512, flags: 1 };
    expect(feed([clientSides.list], directory(bare)).sent).toContain(
      hex(
        reply(
          LIST,
          SERVER,
          wire(`
            00000004 # length of the name
            "bare"
          `),
        ),
      ),
    );
  });
});
