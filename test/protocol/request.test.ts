import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decodeExtendedRequest,
  decodeRequest,
  emptyRequest,
  encodeExtendedRequest,
  encodeRequest,
  payloadBytes,
} from '#tsnbd/protocol/request.js';
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
  offsetHigh: 1,
  offsetLow: 0x80000200,
  lengthBytes: 2 ** 31,
};
const extendedVector = wire(`
  21e41c71         # extended request magic
  0001             # FUA
  0006             # WRITE_ZEROES
  f1f2f3f401020304 # cookie
  0000000180000200 # offset: 6 GiB + 512
  0000020000000400 # length: 2 TiB + 1 KiB
`);
const extendedDecoded = { ...decoded, type: 6, lengthBytes: 2 ** 41 + 1024 };

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
        expect(again).toMatchObject(request);
      }),
      { seed: 9 },
    );
  });

  it('has data behind it only if it is a WRITE', () => {
    for (const style of ['simple', 'structured'] as const) {
      expect(payloadBytes(decoded, style)).toBe(2 ** 31);
      expect(payloadBytes({ ...decoded, type: 0 }, style)).toBe(0);
      expect(payloadBytes({ ...decoded, type: 6, flags: 32 }, style)).toBe(0);
    }
  });
});

describe('an extended request', () => {
  it('is decoded wherever it stands in a buffer', () => {
    const buffer = new Uint8Array(100);
    buffer.set(extendedVector, 37);
    const request = emptyRequest();
    expect(decodeExtendedRequest(new DataView(buffer.buffer), 37, request)).toBe(true);
    expect(request).toEqual(extendedDecoded);
  });

  it('without its magic is refused, and so is each kind in the place of the other', () => {
    for (const bit of Array(32).keys()) {
      const bytes = extendedVector.slice();
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(decodeExtendedRequest(new DataView(bytes.buffer), 0, emptyRequest())).toBe(false);
    }
    const compact = new Uint8Array(32);
    compact.set(vector);
    expect(decodeExtendedRequest(new DataView(compact.buffer), 0, emptyRequest())).toBe(false);
    expect(decodeRequest(new DataView(extendedVector.slice().buffer), 0, emptyRequest())).toBe(false);
  });

  it('with a length or an offset of 2^53 or more stays above every export, the offset to be sent back as it was', () => {
    for (const [number, high, low] of [
      ['0020000000000000', 0x00200000, 0],
      ['0020000000000001', 0x00200000, 1],
      ['8000000000000000', 0x80000000, 0],
      ['ffffffffffffffff', 0xffffffff, 0xffffffff],
    ] as const) {
      const bytes = wire(`21e41c71 0000 0000 0000000000000000 ${number} ${number}`);
      const request = emptyRequest();
      decodeExtendedRequest(new DataView(bytes.buffer), 0, request);
      expect(request.offsetBytes).toBeGreaterThan(Number.MAX_SAFE_INTEGER);
      expect(request.lengthBytes).toBeGreaterThan(Number.MAX_SAFE_INTEGER);
      expect([request.offsetHigh, request.offsetLow]).toEqual([high, low]);
    }
  });

  it('is encoded to the bytes it was decoded from', () => {
    const buffer = new Uint8Array(34);
    expect(encodeExtendedRequest(new DataView(buffer.buffer), 2, extendedDecoded)).toBe(34);
    expect(hex(buffer.subarray(2))).toBe(hex(extendedVector));
  });

  it('comes back as it was, whatever its fields', () => {
    const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
    const fields = {
      flags: fc.integer({ min: 0, max: 65_535 }),
      type: fc.integer({ min: 0, max: 65_535 }),
      cookieHigh: u32,
      cookieLow: u32,
      offsetBytes: fc.maxSafeNat(),
      lengthBytes: fc.maxSafeNat(),
    };
    fc.assert(
      fc.property(fc.record(fields), (request) => {
        const view = new DataView(new ArrayBuffer(32));
        encodeExtendedRequest(view, 0, request);
        const again = emptyRequest();
        expect(decodeExtendedRequest(view, 0, again)).toBe(true);
        expect(again).toMatchObject(request);
      }),
      { seed: 9 },
    );
  });

  it('has data behind it if a flag says so, whatever its type, and if it is a WRITE', () => {
    for (const type of [0, 1, 6, 7, 99]) {
      expect(payloadBytes({ ...extendedDecoded, type, flags: 32, lengthBytes: 512 }, 'extended')).toBe(512);
      const bare = { ...extendedDecoded, type, flags: 1, lengthBytes: 512 };
      expect(payloadBytes(bare, 'extended')).toBe(type === 1 ? 512 : 0);
    }
  });
});
