import { describe, expect, it } from 'vitest';
import {
  checkBlockSizes,
  checkExportSize,
  checkNotEmpty,
  checkTransmissionFlags,
} from '#tsnbd/protocol/export-info.js';
import { optionError } from '#tsnbd/protocol/option-error.js';
import { printableText } from '#tsnbd/protocol/text.js';
import { wire } from './wire.js';

describe('a text of the other side', () => {
  it('reaches the terminal without control or direction characters', () => {
    expect(printableText('\u001b[31mred\u0007\r\nnext\u202eback\u2028line\u0085')).toBe('[31mred next back line');
    expect(printableText('Datenträger 磁盘')).toBe('Datenträger 磁盘');
  });

  it('is shown up to 256 characters', () => {
    expect(printableText('😀'.repeat(256))).toBe('😀'.repeat(256));
    expect(printableText('😀'.repeat(257))).toBe(`${'😀'.repeat(255)}…`);
  });
});

describe('an error reply', () => {
  const nothing = new Uint8Array(0);

  it.each([
    [0x80000001, 'unsupported', "the server does not support a question for the export 'disk'"],
    [0x80000002, 'policy', "the server's policy forbids the export 'disk'"],
    [0x80000003, 'invalid', "the server calls our question for the export 'disk' invalid"],
    [0x80000004, 'platform', "the server's platform cannot offer the export 'disk'"],
    [0x80000005, 'tls-required', "the server offers the export 'disk' over TLS only"],
    [0x80000006, 'unknown-export', "the server does not know the export 'disk'"],
    [0x80000007, 'shutdown', 'the server is shutting down'],
    [
      0x80000008,
      'block-size-required',
      "the server offers the export 'disk' only to clients that obey its block sizes",
    ],
    [0x80000009, 'refused', "the server calls our question for the export 'disk', or its answer, too big"],
    [0x8000000a, 'refused', "the server offers the export 'disk' only to clients that speak extended headers"],
    [0x80000063, 'refused', "the server refuses the export 'disk' with the unknown error 0x80000063"],
  ])('%i becomes a sentence', (type, code, sentence) => {
    expect(optionError(type, nothing, 'disk')).toMatchObject({ name: 'ProtocolError', code, message: sentence });
    const said = optionError(type, wire('"no\u0007 way"'), 'disk');
    expect(said.message).toBe(`${sentence}; it says: no  way`);
  });

  it('names the default export and the list as such', () => {
    expect(optionError(0x80000006, nothing, '').message).toBe('the server has no default export: name one');
    expect(optionError(0x80000005, nothing, '').message).toBe('the server offers the default export over TLS only');
    expect(optionError(0x80000002, nothing, undefined).message).toBe(
      "the server's policy forbids the list of its exports",
    );
  });

  it('is told even if its text is damaged or endless', () => {
    expect(optionError(0x80000002, wire('ff41'), 'disk').message).toBe(
      "the server's policy forbids the export 'disk'; it says: \ufffdA",
    );
    expect(optionError(0x80000002, new Uint8Array(65_536).fill(0x41), 'disk').message.length).toBeLessThan(400);
  });
});

describe('a size', () => {
  it('of 0 bytes up to 2^53 - 1 is taken', () => {
    expect(checkExportSize(0n)).toBe(0);
    expect(checkExportSize(2n ** 53n - 1n)).toBe(Number.MAX_SAFE_INTEGER);
  });

  it('of 2^53 or 2^63 is refused in words', () => {
    expect(() => checkExportSize(2n ** 53n)).toThrow('9007199254740992 bytes; at most');
    expect(() => checkExportSize(2n ** 63n)).toThrow('9223372036854775808 bytes; at most');
  });
});

describe('an export without a byte', () => {
  it('is refused in words', () => {
    expect(checkNotEmpty({ sizeBytes: 1, flags: 1 })).toEqual({ sizeBytes: 1, flags: 1 });
    expect(() => checkNotEmpty({ sizeBytes: 0, flags: 1 })).toThrow('the export is empty (0 bytes)');
  });
});

describe('block sizes', () => {
  it.each([
    [1, 512, 512],
    [1, 4096, 33_554_432],
    [512, 512, 1000],
    [65_536, 65_536, 0xffffffff],
    [1, 2 ** 31, 0xffffffff],
  ])('%i, %i, %i are taken', (minimum, preferred, maximumPayload) => {
    const sizes = { minimum, preferred, maximumPayload };
    expect(checkBlockSizes(sizes)).toEqual(sizes);
  });

  it.each([
    [0, 4096, 33_554_432, 'minimum block size of 0'],
    [3, 4096, 33_554_432, 'minimum block size of 3'],
    [131_072, 131_072, 33_554_432, 'minimum block size of 131072'],
    [1, 256, 33_554_432, 'preferred block size of 256'],
    [4096, 512, 33_554_432, 'preferred block size of 512'],
    [1, 4097, 33_554_432, 'preferred block size of 4097'],
    [1, 4096, 4095, 'at most 4095 bytes at once'],
  ])('%i, %i, %i are refused in words', (minimum, preferred, maximumPayload, words) => {
    expect(() => checkBlockSizes({ minimum, preferred, maximumPayload })).toThrow(words);
  });
});

describe('transmission flags', () => {
  it('are taken with unknown ones among them, if they are flags at all', () => {
    expect(checkTransmissionFlags(0x8001)).toBe(0x8001);
    expect(() => checkTransmissionFlags(0x0100)).toThrow('without NBD_FLAG_HAS_FLAGS');
  });
});
