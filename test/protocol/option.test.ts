import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ProtocolError } from '#tsnbd/protocol/errors.js';
import {
  decodeExportQuestion,
  decodeOptionHeader,
  encodeExportQuestion,
  encodeOption,
} from '#tsnbd/protocol/option.js';
import {
  decodeInformation,
  decodeListedExport,
  decodeOptionReplyHeader,
  encodeInformation,
  encodeListedExport,
  encodeOptionReply,
} from '#tsnbd/protocol/option-reply.js';
import { goQuestion, infoBlockSize, infoDescription, infoExport, infoName } from './conversations.js';
import { hex, join, wire } from './wire.js';

describe('an option', () => {
  const header = wire(`
    49484156454f5054 # IHAVEOPT
    00000007         # NBD_OPT_GO
    00000003         # length of its data
  `);

  it('is header and data', () => {
    expect(hex(encodeOption(7, wire('010203')))).toBe(hex(join([header, wire('010203')])));
    expect(decodeOptionHeader(header)).toEqual({ option: 7, dataBytes: 3 });
  });

  it('without its magic is refused', () => {
    const bytes = header.slice();
    bytes[3] = 0;
    expect(() => decodeOptionHeader(bytes)).toThrow('something else where an option should begin');
  });
});

describe('the question of GO and INFO', () => {
  const question = { exportName: 'disk', infoTypes: [1, 2, 3] };

  it('is name and information types', () => {
    expect(hex(encodeExportQuestion(question))).toBe(hex(goQuestion));
    expect(decodeExportQuestion(goQuestion)).toEqual(question);
  });

  it('is refused after every byte where it may be cut, and with a byte too many', () => {
    for (let end = 0; end < goQuestion.length; end += 1) {
      expect(() => decodeExportQuestion(goQuestion.subarray(0, end)), `cut at ${end}`).toThrow(ProtocolError);
    }
    expect(() => decodeExportQuestion(join([goQuestion, wire('00')]))).toThrow('do not add up');
  });

  it('is refused with a name longer than the data, not UTF-8, or with a NUL', () => {
    expect(() => decodeExportQuestion(wire('00000005 6469736b 0000'))).toThrow(ProtocolError);
    expect(() => decodeExportQuestion(wire('ffffffff 6469736b 0000'))).toThrow('do not add up');
    expect(() => decodeExportQuestion(wire('00000002 c328 0000'))).toThrow('not UTF-8');
    expect(() => decodeExportQuestion(wire('00000002 6400 0000'))).toThrow('NUL');
  });

  it('takes a name of 4096 bytes and none longer', () => {
    const name = 'é'.repeat(2048);
    expect(decodeExportQuestion(encodeExportQuestion({ exportName: name, infoTypes: [] })).exportName).toBe(name);
    expect(() => encodeExportQuestion({ exportName: `${name}x`, infoTypes: [] })).toThrow('4097 bytes');
    const long = wire(`
      00001001 # 4097
      zeroes(4097)
      0000
    `);
    expect(() => decodeExportQuestion(long.fill(0x61, 4, 4101))).toThrow('4096 are allowed');
  });

  it('keeps a byte order mark: it is part of the name', () => {
    expect(decodeExportQuestion(wire('00000004 efbbbf61 0000')).exportName).toBe('\ufeffa');
  });

  it('comes back as it was, whatever is in it', () => {
    const name = fc.string({ unit: 'grapheme', maxLength: 200 }).filter((text) => !text.includes('\0'));
    const infoTypes = fc.array(fc.integer({ min: 0, max: 65_535 }), { maxLength: 100 });
    fc.assert(
      fc.property(name, infoTypes, (exportName, types) => {
        const again = decodeExportQuestion(encodeExportQuestion({ exportName, infoTypes: types }));
        expect(again).toEqual({ exportName, infoTypes: types });
      }),
      { seed: 9 },
    );
  });
});

describe('a reply to an option', () => {
  const header = wire(`
    0003e889045565a9 # reply magic
    00000007         # NBD_OPT_GO
    80000006         # NBD_REP_ERR_UNKNOWN
    00000002         # length of its data
  `);

  it('is header and data', () => {
    expect(hex(encodeOptionReply(7, 0x80000006, wire('6e6f')))).toBe(hex(join([header, wire('6e6f')])));
    expect(decodeOptionReplyHeader(header)).toEqual({ option: 7, type: 0x80000006, dataBytes: 2 });
  });

  it('without its magic is refused', () => {
    const bytes = header.slice();
    bytes[7] = 0;
    expect(() => decodeOptionReplyHeader(bytes)).toThrow('something else where a reply');
  });
});

describe('a listed export', () => {
  const vector = wire(`
    00000004 # length of the name
    "disk"
    "a disk" # its description
  `);

  it('is name and description', () => {
    expect(hex(encodeListedExport({ name: 'disk', description: 'a disk' }))).toBe(hex(vector));
    expect(decodeListedExport(vector)).toEqual({ name: 'disk', description: 'a disk' });
    expect(decodeListedExport(vector.subarray(0, 8))).toEqual({ name: 'disk', description: '' });
  });

  it('is refused when its name is cut or longer than the reply', () => {
    for (let end = 0; end < 8; end += 1) {
      expect(() => decodeListedExport(vector.subarray(0, end)), `cut at ${end}`).toThrow(ProtocolError);
    }
    expect(() => decodeListedExport(wire('80000000'))).toThrow('do not add up');
    expect(() => decodeListedExport(wire('00000001 ff'))).toThrow('not UTF-8');
  });
});

describe('information about an export', () => {
  const vectors = [
    [infoExport, { kind: 'export', sizeBytes: 1_048_576n, flags: 0x016d }],
    [infoName, { kind: 'name', name: 'disk' }],
    [infoDescription, { kind: 'description', description: 'a disk' }],
    [infoBlockSize, { kind: 'block-size', blockSizes: { minimum: 1, preferred: 4096, maximumPayload: 33_554_432 } }],
  ] as const;

  it('is encoded and decoded, each kind', () => {
    for (const [bytes, information] of vectors) {
      expect(decodeInformation(bytes)).toEqual(information);
      expect(hex(encodeInformation(information))).toBe(hex(bytes));
    }
  });

  it('of fixed length is refused with a byte more or less', () => {
    for (const bytes of [infoExport, infoBlockSize]) {
      for (let end = 0; end < bytes.length; end += 1) {
        expect(() => decodeInformation(bytes.subarray(0, end)), `cut at ${end}`).toThrow('do not add up');
      }
      expect(() => decodeInformation(join([bytes, wire('00')]))).toThrow('do not add up');
    }
  });

  it('of a type from the future is skipped', () => {
    expect(decodeInformation(wire('0fff 0102'))).toEqual({ kind: 'unknown', infoType: 0x0fff });
    expect(() => decodeInformation(wire('0f'))).toThrow('do not add up');
  });
});
