import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { TransmissionTerms } from '#tsnbd/protocol/awaited-reply.js';
import { ClientTransmission } from '#tsnbd/protocol/client-transmission.js';
import { Coverage } from '#tsnbd/protocol/coverage.js';
import { DEFAULT_BLOCK_SIZES } from '#tsnbd/protocol/export-info.js';
import { writeChunkHeader, writeError, writeHole, writeOffset, writeSimpleReply } from '#tsnbd/protocol/reply.js';
import { type Transmission, transmissions } from './transmissions.js';
import { cuttings, hex, join } from './wire.js';

/** A client that has sent the requests of a transmission. */
function asking({ terms, requests }: Pick<Transmission, 'terms' | 'requests'>): ClientTransmission {
  const client = new ClientTransmission(terms);
  for (const request of requests) client.encode(request);
  return client;
}

describe.each(Object.entries(transmissions))('%s', (_name, transmission) => {
  const { terms, requests, requestBytes, answer, replies } = transmission;

  it('are asked for in the specification’s bytes', () => {
    const client = new ClientTransmission(terms);
    expect(hex(join(requests.map((request) => client.encode(request).bytes)))).toBe(hex(requestBytes));
    expect(client.awaitedReplies).toBe(requests.length);
  });

  it('are understood in whatever pieces they come', () => {
    for (const pieces of cuttings(answer)) {
      const client = asking(transmission);
      const steps = pieces.map((piece) => client.receive(piece));
      expect(steps.flatMap((step) => step.replies)).toMatchObject(replies);
      expect(steps.map(({ failure }) => failure)).toEqual(steps.map(() => undefined));
      expect(client.bufferedBytes).toBeLessThanOrEqual(4); // of the next reply
      expect([client.awaitedReplies, client.end()]).toEqual([0, undefined]);
    }
  });

  it('are missed when the connection ends after any byte', () => {
    for (let end = 0; end < answer.length; end += 1) {
      const client = asking(transmission);
      expect(client.receive(answer.subarray(0, end)).failure, `cut at ${end}`).toBeUndefined();
      expect(client.end()).toMatchObject({ code: 'closed' });
    }
  });
});

const COOKIE = [0xc0ffee00, 1] as const;
const terms: TransmissionTerms = {
  replyStyle: 'structured',
  sizeBytes: 2 ** 40,
  contexts: [{ id: 1, name: 'base:allocation' }],
  blockSizes: DEFAULT_BLOCK_SIZES,
};
const MOST_BYTES = 33_554_432;

/** Chunks in answer to the first request: flags and type, then the payload by `write`. */
function chunk(flags: number, type: number, write: (view: DataView, at: number) => number): Uint8Array {
  const view = new DataView(new ArrayBuffer(8_300));
  const end = write(view, 20);
  writeChunkHeader(view, 0, flags, type, ...COOKIE, end - 20);
  return new Uint8Array(view.buffer, 0, end);
}

function announce(type: number, payloadBytes: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(20));
  writeChunkHeader(view, 0, 0, type, ...COOKIE, payloadBytes);
  return new Uint8Array(view.buffer);
}

describe('what a server announces is bounded before memory is taken for it', () => {
  const [read, status] = [
    { type: 0, lengthBytes: 1024 },
    { type: 7, lengthBytes: 1024 },
  ];

  it.each([
    ['data', read, 1, 8 + 1024],
    ['a hole', read, 2, 12],
    ['status', status, 5, 4 + 8 * 2 ** 20],
    ['an error', status, 0x8001, 8_192],
    ['an error with its place', read, 0x8002, 8_192],
    ['nothing', read, 0, 0],
    ['something unknown', read, 77, 0],
  ])('%s', (_name, request, type, mostBytes) => {
    const most = asking({ terms, requests: [request] });
    expect(most.receive(announce(type, mostBytes)).failure?.message ?? '').not.toMatch(/so long/);
    expect(most.bufferedBytes).toBeLessThanOrEqual(mostBytes);
    for (const bytes of [mostBytes + 1, 0xffffffff]) {
      const more = asking({ terms, requests: [request] });
      expect(more.receive(announce(type, bytes)).failure?.message).toMatch(/has no reason to be so long/);
      expect(more.bufferedBytes).toBe(0);
    }
  });

  it('data and status only for those who asked', () => {
    for (const [request, type] of [
      [status, 1],
      [read, 5],
      [read, 6],
    ] as const) {
      const client = asking({ terms, requests: [request] });
      expect(client.receive(announce(type, 12)).failure).toMatchObject({ code: 'violation' });
      expect(client.bufferedBytes).toBe(0);
    }
  });

  it('no memory is taken for a read that the server has to refuse', () => {
    const huge = { type: 0, lengthBytes: 0xffffffff };
    const client = asking({ terms: { ...terms, replyStyle: 'simple' }, requests: [huge] });
    const view = new DataView(new ArrayBuffer(16));
    writeSimpleReply(view, 0, 0, ...COOKIE);
    expect(client.receive(new Uint8Array(view.buffer)).failure?.message).toMatch(/maximum payload/);
    const refused = asking({ terms, requests: [huge] });
    const error = chunk(1, 0x8001, (at, to) => writeError(at, to, 22, new Uint8Array(0)));
    expect(refused.receive(error).replies).toMatchObject([{ reply: { error: 22, data: new Uint8Array(0) } }]);
  });
});

describe('a reply of many chunks', () => {
  it('may have 131,072 of them and not one more', () => {
    const read = { type: 0, lengthBytes: MOST_BYTES };
    const holes = (count: number, lengthBytes: number) =>
      Array.from({ length: count }, (_, index) =>
        chunk(0, 2, (view, at) => writeHole(view, at, index * 256, lengthBytes)),
      );
    const none = chunk(1, 0, (_view, at) => at);
    const most = join([...holes(131_071, 256), chunk(1, 2, (view, at) => writeHole(view, at, MOST_BYTES - 256, 256))]);
    expect(asking({ terms, requests: [read] }).receive(most).replies).toMatchObject([{ reply: { error: 0 } }]);
    const more = join([...holes(131_072, 128), none]);
    expect(asking({ terms, requests: [read] }).receive(more).failure).toMatchObject({ code: 'too-big' });
  });

  it('may name 1,025 places of errors before the next', () => {
    const read = { type: 0, lengthBytes: MOST_BYTES };
    const at = (offsetBytes: number) =>
      chunk(0, 0x8002, (view, to) => writeOffset(view, writeError(view, to, 5, new Uint8Array(0)), offsetBytes));
    const errors = (count: number) => join(Array.from({ length: count }, (_, index) => at(index)));
    expect(asking({ terms, requests: [read] }).receive(errors(1_025)).failure).toBeUndefined();
    expect(asking({ terms, requests: [read] }).receive(errors(1_026)).failure).toMatchObject({ code: 'too-big' });
  });
});

it('a number comes again only when its reply is there', () => {
  const client = new ClientTransmission(terms);
  expect([1, 2, 3].map(() => client.encode({ type: 3 }).number)).toEqual([1, 2, 3]);
  expect(client.encode({ type: 2 }).number).toBe(4);
  expect(client.awaitedReplies).toBe(3);
});

it('coverage is that of a set of bytes', () => {
  const piece = fc.tuple(fc.nat(30), fc.integer({ min: 1, max: 6 }));
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
      const coverage = new Coverage();
      const bytes = new Set<number>();
      for (const [from, length] of pieces) {
        const range = Array.from({ length }, (_, index) => from + index);
        const isFree = range.every((byte) => !bytes.has(byte));
        expect(coverage.add(from, from + length)).toBe(isFree);
        if (isFree) for (const byte of range) bytes.add(byte);
        expect(coverage.coveredBytes).toBe(bytes.size);
      }
    }),
    { seed: 11, numRuns: 5_000 },
  );
});
