import { Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { socketPair } from '#tsnbd/kernel/fd-calls.js';
import type { TransmissionTerms } from '#tsnbd/protocol/awaited-reply.js';
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_ERROR_OFFSET,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
} from '#tsnbd/protocol/constants.js';
import { BASE_ALLOCATION, encodeMetaContext } from '#tsnbd/protocol/meta-context.js';
import { encodeInformation, encodeOptionReply } from '#tsnbd/protocol/option-reply.js';
import {
  type ReplyStyle,
  writeChunkHeader,
  writeContextId,
  writeError,
  writeExtendedChunkHeader,
  writeExtendedContextId,
  writeExtendedStatusDescriptor,
  writeHole,
  writeOffset,
  writeSimpleReply,
  writeStatusDescriptor,
} from '#tsnbd/protocol/reply.js';
import { type ExportDirectory, ServerHandshake, type ServerOutcome } from '#tsnbd/protocol/server-handshake.js';
import { runHandshake } from '#tsnbd/transport/handshake-socket.js';
import { ProtocolClient } from './protocol-client.js';
import { type AskedRequest, RawClient } from './raw-client.js';
import { agreement } from './reply-audit.js';

const COOKIE = [0xc0ffee00, 1] as const;
const [DATA, HOLE, STATUS, STATUS_EXT] = [
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
];
const [NONE, ERROR, ERROR_OFFSET] = [NBD_REPLY_TYPE_NONE, NBD_REPLY_TYPE_ERROR, NBD_REPLY_TYPE_ERROR_OFFSET];
const [MORE, DONE] = [0, 1];
const MIB = 1_048_576;

const open: { close(): void }[] = [];
afterEach(() => {
  for (const one of open.splice(0)) one.close();
});

/** The client at one end, a server that says what a test wants at the other. */
function pair(replyStyle: ReplyStyle, contexts = [BASE_ALLOCATION]) {
  const [clientFd, serverFd] = socketPair();
  const client = ProtocolClient.onFd(clientFd, agreement(replyStyle, MIB, contexts));
  const server = RawClient.onFd(serverFd);
  open.push(client, server);
  return { client, server };
}

function bytes(write: (view: DataView, at: number) => number): Buffer {
  const buffer = Buffer.alloc(4096);
  return buffer.subarray(0, write(new DataView(buffer.buffer, buffer.byteOffset), 0));
}

function simple(error: number, cookieLow = 1): Buffer {
  return bytes((view, at) => writeSimpleReply(view, at, error, COOKIE[0], cookieLow));
}

type Payload = (view: DataView, at: number) => number;
const nothing: Payload = (_view, at) => at;
const zeroes =
  (offsetBytes: number, dataBytes: number): Payload =>
  (view, at) =>
    writeOffset(view, at, offsetBytes) + dataBytes;
const hole =
  (offsetBytes: number, holeBytes: number): Payload =>
  (view, at) =>
    writeHole(view, at, offsetBytes, holeBytes);
const failure =
  (error: number, text = ''): Payload =>
  (view, at) =>
    writeError(view, at, error, Buffer.from(text));
const failureAt =
  (error: number, offsetBytes: number): Payload =>
  (view, at) =>
    writeOffset(view, failure(error, 'disk error')(view, at), offsetBytes);
const extents =
  (id: number, ...all: (readonly [number, number])[]): Payload =>
  (view, at) =>
    all.reduce(
      (next, [length, status]) => writeStatusDescriptor(view, next, length, status),
      writeContextId(view, at, id),
    );
const extendedExtents =
  (id: number, count: number, ...all: (readonly [number, number])[]): Payload =>
  (view, at) =>
    all.reduce(
      (next, [length, status]) => writeExtendedStatusDescriptor(view, next, length, status),
      writeExtendedContextId(view, at, id, count),
    );

/** A structured chunk in answer to the first request. */
function chunk(flags: number, type: number, payload: Payload, cookieLow = 1): Buffer {
  const body = bytes(payload);
  const header = bytes((view, at) => writeChunkHeader(view, at, flags, type, COOKIE[0], cookieLow, body.length));
  return Buffer.concat([header, body]);
}

/** The same under extended headers; the request was for offset 4096. */
function extendedChunk(flags: number, type: number, payload: Payload, offset = 4096): Buffer {
  const body = bytes(payload);
  const header = bytes((view, at) =>
    writeExtendedChunkHeader(view, at, flags, type, ...COOKIE, Math.floor(offset / 2 ** 32), offset, body.length),
  );
  return Buffer.concat([header, body]);
}

const read = { type: NBD_CMD_READ, offsetBytes: 4096, lengthBytes: 1024 };
const status = { type: NBD_CMD_BLOCK_STATUS, offsetBytes: 4096, lengthBytes: 1024 };
const write = { type: NBD_CMD_WRITE, offsetBytes: 4096, data: Buffer.alloc(16) };
const trim = { type: NBD_CMD_TRIM, offsetBytes: 4096, lengthBytes: 1024 };

describe('a server that obeys', () => {
  test('is understood in simple replies', async () => {
    const { client, server } = pair('simple');
    const replies = client.askTogether([read, write]);
    await server.read(28 + 28 + 16);
    server.send(Buffer.concat([simple(0, 2), simple(0, 1), Buffer.alloc(1024, 7)]));
    const [got, written] = await Promise.all(replies);
    expect(got).toMatchObject({ error: 0, data: Buffer.alloc(1024, 7), chunkTypes: [] });
    expect(written).toMatchObject({ error: 0 });
  });

  test('is understood in chunks that come in any order, between those of other replies', async () => {
    const { client, server } = pair('structured');
    const replies = client.askTogether([read, status, write]);
    const data = chunk(MORE, DATA, zeroes(4608, 512));
    data.fill(7, 28);
    server.send(
      Buffer.concat([
        data,
        simple(28, 3),
        chunk(DONE, STATUS, extents(1, [512, 3], [4096, 0]), 2),
        chunk(MORE, HOLE, hole(4096, 512)),
        chunk(DONE, NONE, nothing),
      ]),
    );
    const [got, described, refused] = await Promise.all(replies);
    expect(got).toMatchObject({
      error: 0,
      data: Buffer.concat([Buffer.alloc(512), Buffer.alloc(512, 7)]),
      chunkTypes: [DATA, HOLE, NONE],
    });
    expect(described?.extents.get(1)).toEqual([
      { lengthBytes: 512, status: 3 },
      { lengthBytes: 4096, status: 0 },
    ]);
    expect(refused).toMatchObject({ error: 28 });
  });

  test('may tell where a read failed', async () => {
    const { client, server } = pair('structured');
    const reply = client.ask(read);
    server.send(chunk(MORE, DATA, zeroes(4096, 512)));
    server.send(Buffer.concat([chunk(MORE, ERROR_OFFSET, failureAt(5, 4200)), chunk(DONE, NONE, nothing)]));
    expect(await reply).toMatchObject({ error: 5, message: 'disk error', errorOffsets: [4200] });
  });

  test('is understood under extended headers', async () => {
    const { client, server } = pair('extended');
    const described = client.ask({ ...status, lengthBytes: 2 ** 40 });
    expect((await server.read(32)).subarray(16).toString('hex')).toBe('00000000000010000000010000000000');
    server.send(extendedChunk(DONE, STATUS_EXT, extendedExtents(1, 1, [MIB - 4096, 3])));
    expect((await described).extents.get(1)).toEqual([{ lengthBytes: MIB - 4096, status: 3 }]);
    const written = client.ask(write);
    expect((await server.read(48)).readUInt16BE(4)).toBe(32);
    const answer = extendedChunk(DONE, NONE, nothing);
    answer.writeUInt32BE(2, 12);
    server.send(answer);
    expect(await written).toMatchObject({ error: 0, chunkTypes: [NONE] });
  });

  test('may hear of a zeroing that would be slow', async () => {
    const { client, server } = pair('structured');
    const zeroing = { type: NBD_CMD_WRITE_ZEROES, lengthBytes: 512, flags: NBD_CMD_FLAG_FAST_ZERO };
    const reply = client.ask(zeroing);
    server.send(simple(95));
    expect(await reply).toMatchObject({ error: 95 });
  });

  test('closes when it is asked to', async () => {
    const { client, server } = pair('structured');
    const gone = client.disconnect();
    expect((await server.read(28)).readUInt16BE(6)).toBe(2);
    server.finish();
    expect(await gone).toBeUndefined();
  });
});

describe('a server that breaks a rule is caught', () => {
  const content = zeroes(4096, 1024);
  const all = extents(1, [1024, 0]);
  const breaches: readonly [string, ReplyStyle, AskedRequest, Buffer][] = [
    ['where a reply should begin', 'simple', read, Buffer.alloc(16)],
    ['awaits none', 'simple', read, simple(0, 2)],
    ['the cookie of a request', 'structured', read, Buffer.concat([chunk(DONE, NONE, nothing).fill(0, 8, 12)])],
    ['only where it was negotiated', 'simple', read, chunk(DONE, DATA, content)],
    ['only where it was negotiated', 'structured', read, extendedChunk(DONE, DATA, content)],
    ['only where it was negotiated', 'extended', read, chunk(DONE, DATA, content)],
    ['no error 99', 'simple', read, simple(99)],
    ['ENOTSUP answers only FAST_ZERO', 'simple', write, simple(95)],
    ['ENOTSUP answers only FAST_ZERO', 'simple', { ...trim, type: NBD_CMD_WRITE_ZEROES }, simple(95)],
    ['EOVERFLOW answers only DF', 'structured', read, chunk(DONE, ERROR, failure(75))],
    ['no simple reply to a READ', 'structured', read, simple(22)],
    ['no simple reply under extended', 'extended', trim, simple(0)],
    ['block status comes in chunks', 'structured', status, simple(0)],
    ['among chunks', 'structured', trim, Buffer.concat([chunk(MORE, ERROR, failure(5)), simple(5)])],
    ['no unknown flag', 'structured', read, chunk(3, DATA, content)],
    ['NONE is DONE', 'structured', trim, chunk(MORE, NONE, nothing)],
    ['no reason to be so long', 'structured', trim, chunk(DONE, NONE, failure(5))],
    ['no chunk of type 9', 'structured', read, chunk(DONE, 9, nothing)],
    ['OFFSET_DATA has data', 'structured', read, chunk(DONE, DATA, zeroes(4096, 0))],
    ['OFFSET_HOLE has 12 bytes', 'structured', read, chunk(DONE, HOLE, zeroes(4096, 3))],
    ['no reason to be so long', 'structured', read, chunk(DONE, HOLE, zeroes(4096, 5))],
    ['a hole is not empty', 'structured', read, chunk(DONE, HOLE, hole(4096, 0))],
    ['content answers a READ', 'structured', trim, chunk(DONE, HOLE, hole(4096, 1024))],
    ['in the bounds', 'structured', read, chunk(DONE, HOLE, hole(4095, 1024))],
    ['in the bounds', 'structured', read, chunk(DONE, HOLE, hole(4096, 1025))],
    ['in the bounds', 'structured', read, chunk(DONE, DATA, zeroes(5119, 2))],
    [
      'one content chunk with DF',
      'structured',
      { ...read, flags: NBD_CMD_FLAG_DF },
      Buffer.concat([chunk(MORE, HOLE, hole(4096, 512)), chunk(DONE, DATA, zeroes(4608, 512))]),
    ],
    [
      'no overlap',
      'structured',
      read,
      Buffer.concat([chunk(MORE, HOLE, hole(4608, 512)), chunk(MORE, DATA, zeroes(4096, 513))]),
    ],
    [
      'no overlap',
      'structured',
      read,
      Buffer.concat([chunk(MORE, HOLE, hole(4096, 512)), chunk(MORE, DATA, zeroes(4607, 513))]),
    ],
    [
      'over an earlier error',
      'structured',
      read,
      Buffer.concat([chunk(MORE, ERROR_OFFSET, failureAt(5, 4096)), chunk(DONE, DATA, content)]),
    ],
    ['covers the whole request', 'structured', read, chunk(DONE, DATA, zeroes(4096, 1023))],
    ['covers the whole request', 'structured', read, chunk(DONE, NONE, nothing)],
    ['awaits none', 'structured', read, Buffer.concat([chunk(DONE, DATA, content), chunk(DONE, NONE, nothing)])],
    ['BLOCK_STATUS only without', 'extended', status, extendedChunk(DONE, STATUS, all)],
    ['only with extended headers', 'structured', status, chunk(DONE, STATUS_EXT, extendedExtents(1, 1, [1024, 0]))],
    ['has whole descriptors', 'structured', status, chunk(DONE, STATUS, extents(1))],
    ['has whole descriptors', 'structured', status, chunk(DONE, STATUS, (view, at) => all(view, at) + 4)],
    [
      'the number of its descriptors',
      'extended',
      status,
      extendedChunk(DONE, STATUS_EXT, extendedExtents(1, 2, [9, 0])),
    ],
    [
      'has whole descriptors',
      'extended',
      status,
      extendedChunk(DONE, STATUS_EXT, (view, at) => extendedExtents(1, 1, [1024, 0])(view, at) + 8),
    ],
    ['status answers a BLOCK_STATUS', 'structured', read, chunk(DONE, STATUS, all)],
    ['a context that was selected', 'structured', status, chunk(DONE, STATUS, extents(2, [1024, 0]))],
    [
      'one status chunk a context',
      'structured',
      status,
      Buffer.concat([chunk(MORE, STATUS, all), chunk(DONE, STATUS, all)]),
    ],
    ['status of every context', 'structured', status, chunk(DONE, NONE, nothing)],
    ['an extent is not empty', 'structured', status, chunk(DONE, STATUS, extents(1, [0, 0], [1024, 0]))],
    ['no unknown status', 'structured', status, chunk(DONE, STATUS, extents(1, [1024, 4]))],
    ['no unknown status', 'extended', status, extendedChunk(DONE, STATUS_EXT, extendedExtents(1, 1, [1024, 2 ** 32]))],
    ['only the last extent', 'structured', status, chunk(DONE, STATUS, extents(1, [1024, 0], [512, 3]))],
    ['beyond the export', 'structured', status, chunk(DONE, STATUS, extents(1, [MIB, 0]))],
    [
      'with REQ_ONE',
      'structured',
      { ...status, flags: NBD_CMD_FLAG_REQ_ONE },
      chunk(DONE, STATUS, extents(1, [512, 0], [512, 3])),
    ],
    [
      'with REQ_ONE',
      'structured',
      { ...status, flags: NBD_CMD_FLAG_REQ_ONE },
      chunk(DONE, STATUS, extents(1, [1025, 0])),
    ],
    ['an error is whole', 'structured', trim, chunk(DONE, ERROR, (view, at) => failure(5)(view, at) - 1)],
    ['an error is whole', 'structured', trim, chunk(DONE, ERROR_OFFSET, failure(5))],
    ['the text fits', 'structured', trim, chunk(DONE, ERROR, (view, at) => failure(5, 'words')(view, at) - 1)],
    ['no NUL', 'structured', trim, chunk(DONE, ERROR, failure(5, 'a\0b'))],
    ['no error 0', 'structured', trim, chunk(DONE, ERROR, failure(0))],
    [
      'one ERROR a reply',
      'structured',
      trim,
      Buffer.concat([chunk(MORE, ERROR, failure(5)), chunk(DONE, ERROR, failure(5))]),
    ],
    ['an error lies in the bounds', 'structured', trim, chunk(DONE, ERROR_OFFSET, failureAt(5, 5120))],
    ['the offset of the request', 'extended', trim, extendedChunk(DONE, NONE, nothing, 4097)],
    [
      'no reason to be so long',
      'structured',
      read,
      bytes((view, at) => writeChunkHeader(view, at, MORE, DATA, ...COOKIE, 33_554_441)),
    ],
    ['closed the connection and left requests', 'structured', read, chunk(MORE, HOLE, hole(4096, 512))],
  ];

  test.each(breaches)('%s (%s)', async (words, replyStyle, request, answer) => {
    const { client, server } = pair(replyStyle);
    const reply = client.ask(request);
    server.send(answer);
    server.finish();
    const second = client.disconnect(); // the first breach may be behind the first reply
    const outcome = await reply.then(
      async () => await second,
      (error: Error) => error.message,
    );
    expect(outcome).toContain(words);
    await expect(client.ask(request)).rejects.toThrow();
  });
});

describe('a server that sends too much at once is caught', () => {
  function withAgreement(agreed: TransmissionTerms) {
    const [clientFd, serverFd] = socketPair();
    const client = ProtocolClient.onFd(clientFd, agreed);
    const server = RawClient.onFd(serverFd);
    open.push(client, server);
    return { client, server };
  }

  test('with data beyond the maximum payload', async () => {
    const blockSizes = { minimum: 512, preferred: 512, maximumPayload: 1023 };
    const { client, server } = withAgreement({ ...agreement('structured', MIB), blockSizes });
    const reply = client.ask(read);
    server.send(chunk(DONE, DATA, zeroes(4096, 1024)));
    await expect(reply).rejects.toThrow('no reason to be so long');
  });

  test.each([
    ['2^20 descriptors are taken', MIB, undefined],
    ['one more is not', MIB + 1, 'no reason to be so long'],
  ])('%s', async (_name, count, words) => {
    const { client, server } = withAgreement(agreement('structured', 2 * MIB, [BASE_ALLOCATION]));
    const reply = client.blockStatus(0, 2 * MIB).catch((error: Error) => error.message);
    const payload = Buffer.alloc(4 + 8 * count);
    payload.writeUInt32BE(1);
    for (let at = 4; at < payload.length; at += 8) payload.writeUInt32BE(1, at);
    server.send(bytes((view, at) => writeChunkHeader(view, at, DONE, STATUS, ...COOKIE, payload.length)));
    server.send(payload);
    const answer = await reply;
    if (words === undefined) expect(answer).toMatchObject({ error: 0 });
    else expect(answer).toContain(words);
  });
});

describe('our own handshake', () => {
  const disk = { name: 'disk', sizeBytes: MIB, flags: 0x056d, contexts: ['base:allocation'] };
  const exports: ExportDirectory = { find: (name) => (name === 'disk' ? disk : undefined), list: () => [disk] };

  async function negotiate(wishes: Parameters<typeof ProtocolClient.negotiate>[1]) {
    const [clientFd, serverFd] = socketPair();
    const [socket, serverSocket] = [clientFd, serverFd].map((fd) => new Socket({ fd, readable: true, writable: true }));
    if (socket === undefined || serverSocket === undefined) throw new Error('two sockets');
    open.push({ close: () => [socket, serverSocket].map((one) => one.destroy()) });
    const served: Promise<ServerOutcome> = runHandshake(
      serverSocket,
      new ServerHandshake(exports),
      AbortSignal.timeout(5_000),
    );
    served.catch(() => {});
    const client = await ProtocolClient.negotiate(socket, wishes);
    return { client, served: await served };
  }

  test.each([
    ['simple', [], 0x056d],
    ['structured', ['base:allocation'], 0x05ed],
    ['extended', ['base:allocation'], 0x05ed],
    ['extended', [], 0x05ed],
  ] as const)('settles on %s replies with contexts %j', async (replyStyle, contexts, flags) => {
    const { client, served } = await negotiate({ exportName: 'disk', replyStyle, contexts });
    const selected = contexts.map(() => BASE_ALLOCATION);
    expect(client.flags).toBe(flags);
    expect(client.agreed).toMatchObject({ replyStyle, contexts: selected, sizeBytes: MIB });
    expect(served).toMatchObject({ kind: 'transmission', flags, replyStyle, contexts: selected });
  });

  test('tells why it fails', async () => {
    await expect(negotiate({ exportName: 'nowhere' })).rejects.toThrow('there is no such export');
    await expect(negotiate({ exportName: 'disk', contexts: ['base:allocation'] })).rejects.toThrow('fewer contexts');
  });

  const GREETING = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), Buffer.from([0, 3])]);
  const [GO, STRUCTURED, SET_CONTEXTS, ACK, INFO, META_CONTEXT, UNSUP] = [7, 8, 10, 1, 3, 4, 0x80000001];
  const told = (flags: number) =>
    encodeOptionReply(GO, INFO, encodeInformation({ kind: 'export', sizeBytes: 512n, flags }));
  const context = encodeOptionReply(SET_CONTEXTS, META_CONTEXT, encodeMetaContext(BASE_ALLOCATION));
  const answered = (option: number, type = ACK) => encodeOptionReply(option, type, new Uint8Array(0));
  const granted = [GREETING, answered(STRUCTURED)];

  test.each([
    ['simple', 'does not begin with NBDMAGIC', [Buffer.alloc(18)]],
    ['simple', 'SEND_DF', [GREETING, told(0x81), answered(GO)]],
    ['simple', 'FAST_ZERO only with WRITE_ZEROES', [GREETING, told(0x801), answered(GO)]],
    ['structured', 'SEND_DF', [...granted, context, answered(SET_CONTEXTS), told(1), answered(GO)]],
    ['structured', 'simple replies only', [GREETING, answered(STRUCTURED, UNSUP), told(1), answered(GO)]],
    ['structured', 'fewer contexts', [...granted, answered(SET_CONTEXTS), told(0x81), answered(GO)]],
  ] as const)('fails, asking for %s replies, at a breach: %s', async (replyStyle, words, says) => {
    const [clientFd, serverFd] = socketPair();
    const server = RawClient.onFd(serverFd);
    const socket = new Socket({ fd: clientFd, readable: true, writable: true });
    open.push(server, { close: () => socket.destroy() });
    server.send(Buffer.concat(says));
    const contexts = replyStyle === 'structured' ? ['base:allocation'] : [];
    await expect(ProtocolClient.negotiate(socket, { replyStyle, contexts })).rejects.toThrow(words);
  });
});
