import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { mapExport } from '#tsnbd/attach/map-export.js';
import { describeExport, listExports, negotiate } from '#tsnbd/attach/query.js';
import { connect } from '#tsnbd/transport/connect.js';
import { GO, greeting, INFO, infoExport, listAnswers, REP_INFO, reply } from '../protocol/conversations.js';
import { join as concatenated, wire } from '../protocol/wire.js';

const [STRUCTURED, LIST_CONTEXTS, SET_CONTEXTS, EXTENDED, ACK, UNSUP] = [8, 9, 10, 11, 1, 0x80000001];
const [BLOCK_STATUS_EXT, ERROR] = [6, 0x8001];
const SIZE_BYTES = 1_048_576;

let folder: string;
let server: Server | undefined;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-query-'));
});
afterEach(async () => {
  await new Promise((resolve) => server?.close(resolve) ?? resolve(undefined));
  rmSync(folder, { recursive: true });
});

/** What a server does with what it has received from one client; answers what is still of no use to it. */
type Talk = (socket: Socket, received: Buffer) => Buffer;

/** A server on a unix socket; the first client gets the first of `talks`, and the last gets all that follow. */
async function serve(...talks: readonly (() => Talk)[]) {
  let clients = 0;
  const path = join(folder, 'socket');
  server = createServer((socket) => {
    const talk = talks[Math.min(clients, talks.length - 1)]?.();
    clients += 1;
    let received: Buffer = Buffer.alloc(0);
    socket.on('error', () => {});
    socket.on('data', (piece) => {
      received = talk?.(socket, Buffer.concat([received, piece])) ?? received;
    });
    socket.write(greeting.fixed);
  }).listen(path);
  await new Promise((resolve) => server?.once('listening', resolve));
  const address = { kind: 'unix', path } as const;
  return { address, exportName: 'disk', clients: () => clients };
}

/** Answers options by their numbers; what is not among them is not supported. */
function answering(answers: Readonly<Record<number, Uint8Array>>, then: Talk = (_socket, rest) => rest): () => Talk {
  return () => {
    let greeted = false;
    let transmits = false;
    return function talk(socket, received): Buffer {
      if (transmits) return then(socket, received);
      const begin = greeted ? 0 : 4;
      if (received.length < begin + 16) return received;
      const [number, dataBytes] = [received.readUInt32BE(begin + 8), received.readUInt32BE(begin + 12)];
      const end = begin + 16 + dataBytes;
      if (received.length < end) return received;
      greeted = true;
      socket.write(answers[number] ?? reply(number, UNSUP));
      transmits = number === GO && answers[GO] !== undefined;
      const rest = received.subarray(end);
      return rest.length > 0 ? talk(socket, rest) : rest;
    };
  };
}

const informs = {
  [EXTENDED]: reply(EXTENDED, ACK),
  [LIST_CONTEXTS]: concatenated([reply(LIST_CONTEXTS, 4, wire('00000000 783a79')), reply(LIST_CONTEXTS, ACK)]),
  [INFO]: concatenated([reply(INFO, REP_INFO, infoExport), reply(INFO, ACK)]),
};
const goes = concatenated([reply(GO, REP_INFO, infoExport), reply(GO, ACK)]);
const ofBytes = (bytes: number, number: number) =>
  concatenated([
    reply(number, REP_INFO, wire(`0000 ${bytes.toString(16).padStart(16, '0')} 0001`)),
    reply(number, ACK),
  ]);

describe('a server that does not answer is named', () => {
  test('when it is silent', async () => {
    const { address } = await serve(() => (_socket, received) => received);
    const socket = await connect(address, AbortSignal.timeout(5_000));
    const asked = negotiate({ socket, address }, { kind: 'list' }, 'list', AbortSignal.timeout(50));
    await expect(asked.finally(() => socket.destroy())).rejects.toMatchObject({
      code: 'time-limit',
      message: `${address.path}: cannot finish the negotiation: no answer within the time limit`,
    });
  });

  test('when it closes the connection', async () => {
    const { address } = await serve(() => (socket, received) => {
      socket.end();
      return received;
    });
    await expect(listExports(address)).rejects.toMatchObject({
      code: 'closed',
      message: expect.stringMatching(`^${address.path}: the server closed the connection in the negotiation`),
    });
  });
});

describe('an export is described', () => {
  test('by NBD_OPT_INFO alone, where a server knows it', async () => {
    const target = await serve(answering(informs));
    expect(await describeExport(target)).toEqual({
      exportName: 'disk',
      info: { sizeBytes: SIZE_BYTES, flags: 0x016d },
      fixedNewstyle: true,
      replyStyle: 'extended',
      contexts: ['x:y'],
    });
    expect(target.clients()).toBe(1);
  });

  test('by opening it where a server does not know it', async () => {
    const target = await serve(answering({ [STRUCTURED]: reply(STRUCTURED, ACK), [GO]: goes }));
    expect(await describeExport(target)).toMatchObject({
      info: { sizeBytes: SIZE_BYTES },
      replyStyle: 'structured',
      contexts: [],
    });
    expect(target.clients()).toBe(2);
  });

  test('by opening it where a server has told no size', async () => {
    const target = await serve(answering({ ...informs, [INFO]: ofBytes(0, INFO), [GO]: goes }));
    expect(await describeExport(target)).toMatchObject({ info: { sizeBytes: SIZE_BYTES }, contexts: ['x:y'] });
    expect(target.clients()).toBe(2);
  });

  test('also if it is empty', async () => {
    const target = await serve(answering({ ...informs, [INFO]: ofBytes(0, INFO), [GO]: ofBytes(0, GO) }));
    expect(await describeExport(target)).toMatchObject({ info: { sizeBytes: 0 }, contexts: ['x:y'] });
  });

  test('not if the server refuses it', async () => {
    const target = await serve(answering({ [INFO]: reply(INFO, 0x80000006) }));
    await expect(describeExport(target)).rejects.toMatchObject({ code: 'unknown-export' });
    expect(target.clients()).toBe(1);
  });
});

test('exports are listed', async () => {
  const target = await serve(() => (socket) => {
    socket.write(listAnswers.two.subarray(greeting.fixed.length));
    return Buffer.alloc(0);
  });
  expect(await listExports(target.address)).toMatchObject([{ name: 'disk' }, { name: '' }]);
});

/** The payload of a chunk of status, or of an error. */
type Told = Uint8Array | { readonly error: Uint8Array };

/** The transmission of a server with extended headers: answers each BLOCK_STATUS by the payloads that `told` gives. */
function telling(told: (offsetBytes: number, lengthBytes: number, request: number) => Told | undefined): Talk {
  let requests = 0;
  return function talk(socket, received): Buffer {
    if (received.length < 32) return received;
    const [offsetBytes, lengthBytes] = [16, 24].map((at) => Number(received.readBigUInt64BE(at)));
    if (received.readUInt16BE(6) === 7) {
      const payload = told(offsetBytes ?? 0, lengthBytes ?? 0, requests);
      requests += 1;
      if (payload === undefined) socket.end();
      else if ('error' in payload) socket.write(extendedChunk(received, payload.error, ERROR));
      else socket.write(extendedChunk(received, payload));
    }
    return talk(socket, received.subarray(32));
  };
}

function extendedChunk(request: Buffer, payload: Uint8Array, type = BLOCK_STATUS_EXT): Uint8Array {
  const header = Buffer.alloc(32);
  header.writeUInt32BE(0x6e8a278c, 0);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(type, 6);
  request.copy(header, 8, 8, 24);
  header.writeBigUInt64BE(BigInt(payload.length), 24);
  return concatenated([header, payload]);
}

type Extents = readonly (readonly [lengthBytes: number, status: number])[];

function extents(id: number, ...all: Extents): Uint8Array {
  return manyExtents(id, all);
}

function manyExtents(id: number, all: Extents): Uint8Array {
  const payload = Buffer.alloc(8 + 16 * all.length);
  payload.writeUInt32BE(id, 0);
  payload.writeUInt32BE(all.length, 4);
  for (const [index, [lengthBytes, status]] of all.entries()) {
    payload.writeBigUInt64BE(BigInt(lengthBytes), 8 + 16 * index);
    payload.writeBigUInt64BE(BigInt(status), 16 + 16 * index);
  }
  return payload;
}

describe('an export is mapped', () => {
  const selects = {
    [EXTENDED]: reply(EXTENDED, ACK),
    [SET_CONTEXTS]: concatenated([
      reply(SET_CONTEXTS, 4, concatenated([wire('00000005'), wire('"base:allocation"')])),
      reply(SET_CONTEXTS, ACK),
    ]),
    [GO]: goes,
  };
  const serveMap = (told: Parameters<typeof telling>[0]) => serve(answering(selects, telling(told)));

  test('by as many requests as the server makes necessary; neighbours of a kind are one piece', async () => {
    const asked: number[][] = [];
    const target = await serveMap((offsetBytes, lengthBytes) => {
      asked.push([offsetBytes, lengthBytes]);
      const answers: Readonly<Record<number, readonly (readonly [number, number])[]>> = {
        0: [
          [4096, 0],
          [4096, 0],
          [65_536, 3],
        ],
        73728: [[8192, 7]], // a bit that means nothing
        81920: [[2 ** 50, 2]], // beyond the end
      };
      return extents(5, ...(answers[offsetBytes] ?? []));
    });
    const progress: number[][] = [];
    expect(await mapExport(target, { onProgress: (...bytes) => progress.push(bytes) })).toEqual({
      sizeBytes: SIZE_BYTES,
      pieces: [
        { offsetBytes: 0, lengthBytes: 8192, status: 0 },
        { offsetBytes: 8192, lengthBytes: 73_728, status: 3 },
        { offsetBytes: 81_920, lengthBytes: SIZE_BYTES - 81_920, status: 2 },
      ],
    });
    expect(asked).toEqual([
      [0, SIZE_BYTES],
      [73_728, SIZE_BYTES - 73_728],
      [81_920, SIZE_BYTES - 81_920],
    ]);
    expect(progress).toEqual([73_728, 81_920, SIZE_BYTES].map((doneBytes) => [doneBytes, SIZE_BYTES]));
  });

  test('not by a server that has more to tell than there is memory for', async () => {
    const answers = { ...selects, [GO]: ofBytes(2 ** 40, GO) };
    const many = Array.from({ length: 2 ** 20 }, (_, index) => [512, index % 2] as const);
    const target = await serve(
      answering(
        answers,
        telling(() => manyExtents(5, many)),
      ),
    );
    await expect(mapExport(target)).rejects.toMatchObject({
      code: 'too-big',
      message: expect.stringContaining('1000000 pieces'),
    });
  });

  test('not by a server without base:allocation', async () => {
    const target = await serve(answering({ [STRUCTURED]: reply(STRUCTURED, ACK), [GO]: goes }));
    await expect(mapExport(target)).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('base:allocation'),
    });
  });

  test.each<[string, Told | undefined, RegExp]>([
    [
      'whose disk fails',
      { error: wire('00000005 0004 62616421') },
      /cannot tell what lies at byte 0: i\/o error \(EIO\); it says: bad!/,
    ],
    ['which tells of another context', extents(6, [4096, 0]), /a context that was selected/],
    ['which tells of nothing', extents(5), /whole descriptors/],
    ['which tells of empty extents', extents(5, [0, 0]), /an extent is not empty/],
    ['which goes', undefined, /closed the connection/],
  ])('not by a server %s', async (_name, payload, message) => {
    const target = await serveMap(() => payload);
    await expect(mapExport(target)).rejects.toThrow(message);
  });

  const all = extents(5, [SIZE_BYTES, 0]);
  const withCookie = (request: Buffer, cookie: string) => Buffer.from(request).fill(cookie, 8, 16, 'hex');
  test.each<[string, string, RegExp, (request: Buffer) => Uint8Array]>([
    [
      'with the cookie of nobody',
      'violation',
      /breaks a rule of the protocol: the cookie of a request in its reply/,
      (request) => extendedChunk(withCookie(request, '11'), all),
    ],
    [
      'to a request that was not made',
      'violation',
      /no reply to a request that awaits none/,
      (request) => extendedChunk(withCookie(request, 'c0ffee0000000063'), all),
    ],
    [
      'twice',
      'violation',
      /no reply to a request that awaits none/,
      (request) => concatenated([extendedChunk(request, extents(5, [512, 0])), extendedChunk(request, all)]),
    ],
    [
      'with less than it announces, and goes',
      'closed',
      /closed the connection in the middle of a reply/,
      (request) => extendedChunk(request, all).subarray(0, -1),
    ],
    [
      'with an error that is none of NBD',
      'system',
      /byte 0: error 99, which NBD does not have; it says: no/,
      (request) => extendedChunk(request, wire('00000063 0002 6e6f'), ERROR),
    ],
    ['with garbage', 'violation', /something else where a reply should begin/, () => new Uint8Array(64).fill(0x55)],
  ])('not by a server that answers %s', async (_name, code, message, answer) => {
    const target = await serve(
      answering(selects, (socket, received) => {
        if (received.length >= 32) socket.end(answer(received));
        return Buffer.alloc(0);
      }),
    );
    await expect(mapExport(target)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });
});
