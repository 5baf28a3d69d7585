import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { replyError, writeSimpleReply } from '#tsnbd/protocol/reply.js';
import { decodeRequest, emptyRequest, encodeRequest, payloadBytes } from '#tsnbd/protocol/request.js';
import { hex, wire } from './wire.js';

const vector = wire(`
  25609513         # request magic
  0001             # FUA
  0001             # WRITE
  f1f2f3f401020304 # cookie
  0000000180000200 # offset: 6 GiB + 512
  80000000         # length: 2 GiB
`);
const decoded = {
  flags: 1,
  type: 1,
  cookieHigh: 0xf1f2f3f4,
  cookieLow: 0x01020304,
  offsetBytes: 6 * 2 ** 30 + 512,
  lengthBytes: 2 ** 31,
};

describe('a request', () => {
  it('is decoded wherever it stands in a buffer', () => {
    const buffer = new Uint8Array(100);
    buffer.set(vector, 37);
    const request = emptyRequest();
    expect(decodeRequest(new DataView(buffer.buffer), 37, request)).toBe(true);
    expect(request).toEqual(decoded);
  });

  it('without the request magic is refused', () => {
    for (const bit of Array(32).keys()) {
      const bytes = vector.slice();
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(decodeRequest(new DataView(bytes.buffer), 0, emptyRequest())).toBe(false);
    }
  });

  it('with an offset of 2^53 or more stays above every export', () => {
    for (const offset of ['0020000000000000', '0020000000000001', '8000000000000000', 'ffffffffffffffff']) {
      const bytes = wire(`25609513 0000 0000 0000000000000000 ${offset} 00000000`);
      const request = emptyRequest();
      decodeRequest(new DataView(bytes.buffer), 0, request);
      expect(request.offsetBytes).toBeGreaterThan(Number.MAX_SAFE_INTEGER);
    }
  });

  it('is encoded to the bytes it was decoded from', () => {
    const buffer = new Uint8Array(30);
    expect(encodeRequest(new DataView(buffer.buffer), 2, decoded)).toBe(30);
    expect(hex(buffer.subarray(2))).toBe(hex(vector));
  });

  it('comes back as it was, whatever its fields', () => {
    const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
    const fields = {
      flags: fc.integer({ min: 0, max: 65_535 }),
      type: fc.integer({ min: 0, max: 65_535 }),
      cookieHigh: u32,
      cookieLow: u32,
      offsetBytes: fc.maxSafeNat(),
      lengthBytes: u32,
    };
    fc.assert(
      fc.property(fc.record(fields), (request) => {
        const view = new DataView(new ArrayBuffer(28));
        encodeRequest(view, 0, request);
        const again = emptyRequest();
        expect(decodeRequest(view, 0, again)).toBe(true);
        expect(again).toEqual(request);
      }),
      { seed: 9 },
    );
  });

  it('has data behind it only if it is a WRITE', () => {
    expect(payloadBytes(decoded)).toBe(2 ** 31);
    expect(payloadBytes({ ...decoded, type: 0 })).toBe(0);
    expect(payloadBytes({ ...decoded, type: 6 })).toBe(0);
  });
});

describe('a simple reply', () => {
  it('carries the error and the cookie of its request', () => {
    const buffer = new Uint8Array(20);
    expect(writeSimpleReply(new DataView(buffer.buffer), 4, 28, 0xf1f2f3f4, 0x01020304)).toBe(20);
    const expected = wire(`
      67446698         # simple reply magic
      0000001c         # ENOSPC
      f1f2f3f401020304 # cookie
    `);
    expect(hex(buffer.subarray(4))).toBe(hex(expected));
  });

  it('names each errno of the image by one of the specification’s values', () => {
    const cases = { 0: 0, 1: 1, 5: 5, 12: 12, 13: 1, 22: 22, 27: 28, 28: 28, 30: 1, 75: 22, 95: 22, 108: 108, 122: 28 };
    for (const [errno, value] of Object.entries(cases)) expect(replyError(Number(errno)), errno).toBe(value);
    const allowed = [0, 1, 5, 12, 22, 28, 108];
    for (let errno = 0; errno < 4096; errno += 1) expect(allowed).toContain(replyError(errno));
    expect(replyError(6)).toBe(5);
  });
});
