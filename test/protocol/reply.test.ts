import { describe, expect, it } from 'vitest';
import {
  replyError,
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
import { hex, wire } from './wire.js';

const COOKIE = [0xf1f2f3f4, 0x01020304] as const;

/** What a writer puts behind the first four bytes of a buffer; it must say where the next byte goes. */
function written(write: (view: DataView, at: number) => number): string {
  const buffer = new Uint8Array(100);
  const end = write(new DataView(buffer.buffer), 4);
  expect(hex(buffer.subarray(0, 4))).toBe('00000000');
  expect(hex(buffer.subarray(end)).replaceAll('0', '')).toBe('');
  return hex(buffer.subarray(4, end));
}

describe('a simple reply', () => {
  it('carries the error and the cookie of its request', () => {
    const expected = wire(`
      67446698         # simple reply magic
      0000001c         # ENOSPC
      f1f2f3f401020304 # cookie
    `);
    expect(written((view, at) => writeSimpleReply(view, at, 28, ...COOKIE))).toBe(hex(expected));
  });
});

describe('a chunk of a reply', () => {
  it('has a header of 20 bytes', () => {
    const expected = wire(`
      668e33ef         # structured reply magic
      0001             # DONE
      8002             # ERROR_OFFSET
      f1f2f3f401020304 # cookie
      80000000         # length of its payload
    `);
    const header = (view: DataView, at: number) => writeChunkHeader(view, at, 1, 0x8002, ...COOKIE, 2 ** 31);
    expect(written(header)).toBe(hex(expected));
  });

  it('has a header of 32 bytes under extended headers, with the offset as it came', () => {
    const expected = wire(`
      6e8a278c         # extended reply magic
      0001             # DONE
      0006             # BLOCK_STATUS_EXT
      f1f2f3f401020304 # cookie
      fffffffffffffffe # offset
      0000000102000008 # length of its payload
    `);
    const length = 2 ** 32 + 2 ** 25 + 8;
    const header = (view: DataView, at: number) =>
      writeExtendedChunkHeader(view, at, 1, 6, ...COOKIE, 0xffffffff, 0xfffffffe, length);
    expect(written(header)).toBe(hex(expected));
  });

  it('with data begins with their offset', () => {
    expect(written((view, at) => writeOffset(view, at, 2 ** 53 - 512))).toBe('001ffffffffffe00');
  });

  it('for a hole is its offset and size', () => {
    expect(written((view, at) => writeHole(view, at, 2 ** 33 + 512, 0x80000200))).toBe('000000020000020080000200');
  });

  it('for block status is a context and descriptors', () => {
    const expected = wire(`
      00000001 # context
      ffffffff # length of the extent
      00000003 # HOLE, ZERO
    `);
    const status = (view: DataView, at: number) =>
      writeStatusDescriptor(view, writeContextId(view, at, 1), 2 ** 32 - 1, 3);
    expect(written(status)).toBe(hex(expected));
  });

  it('for block status under extended headers is a context, a count, and wider descriptors', () => {
    const expected = wire(`
      00000001         # context
      00000002         # descriptors
      0000020000000200 # length of the extent: 2 TiB + 512
      0000000000000003 # HOLE, ZERO
      0000000000001000 # length of the extent
      0000000000000000
    `);
    const status = (view: DataView, at: number) => {
      const first = writeExtendedContextId(view, at, 1, 2);
      const second = writeExtendedStatusDescriptor(view, first, 2 ** 41 + 512, 3);
      return writeExtendedStatusDescriptor(view, second, 4096, 0);
    };
    expect(written(status)).toBe(hex(expected));
  });

  it('for an error is its number and a text, and maybe an offset', () => {
    expect(written((view, at) => writeError(view, at, 5, new Uint8Array(0)))).toBe('000000050000');
    const expected = wire(`
      00000016         # EINVAL
      0007             # length of the text in UTF-8
      "größe"
      0000000000000200 # offset
    `);
    const text = new TextEncoder().encode('größe');
    expect(written((view, at) => writeOffset(view, writeError(view, at, 22, text), 512))).toBe(hex(expected));
  });
});

describe('an errno of the image', () => {
  const [READ, WRITE, TRIM, WRITE_ZEROES] = [0, 1, 4, 6];
  const [FUA, DF, FAST_ZERO] = [1, 4, 16];

  it('is named by one of the specification’s values', () => {
    const request = { type: WRITE, flags: FUA };
    const cases = { 0: 0, 1: 1, 5: 5, 12: 12, 13: 1, 22: 22, 27: 28, 28: 28, 30: 1, 75: 22, 95: 22, 108: 108, 122: 28 };
    for (const [errno, value] of Object.entries(cases)) expect(replyError(Number(errno), request), errno).toBe(value);
    const allowed = [0, 1, 5, 12, 22, 28, 108];
    for (let errno = 0; errno < 4096; errno += 1) expect(allowed).toContain(replyError(errno, request));
    expect(replyError(6, request)).toBe(5);
  });

  it('is ENOTSUP only in answer to a WRITE_ZEROES that has to be fast', () => {
    expect(replyError(95, { type: WRITE_ZEROES, flags: FAST_ZERO | FUA })).toBe(95);
    expect(replyError(95, { type: WRITE_ZEROES, flags: FUA })).toBe(22);
    expect(replyError(95, { type: TRIM, flags: FAST_ZERO })).toBe(22);
  });

  it('is EOVERFLOW only in answer to a READ that must not be fragmented', () => {
    expect(replyError(75, { type: READ, flags: DF })).toBe(75);
    expect(replyError(75, { type: READ, flags: 0 })).toBe(22);
    expect(replyError(75, { type: WRITE, flags: DF })).toBe(22);
  });
});
