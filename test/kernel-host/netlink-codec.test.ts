import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { KernelError } from '#tsnbd/kernel/errors.js';
import {
  type Attribute,
  attributeInteger,
  encodeRequest,
  parseAnswers,
  parseAttributes,
} from '#tsnbd/kernel/netlink-codec.js';

const hex = (...parts: readonly string[]) => Buffer.from(parts.join('').replaceAll(' ', ''), 'hex');

/** What the kernel answered to a CONNECT: its message with the index, then the ACK. */
const connected = [
  '1c000000 1d00 0000 07000000 2a100000', // 28 bytes of family 29, no flags, sequence 7, port 4138
  '01 01 0000', // CONNECT, version 1
  '0800 0100 03000000', // INDEX: 3
];
const acknowledged = [
  '24000000 0200 0001 07000000 2a100000', // 36 bytes, NLMSG_ERROR, capped, sequence 7
  '00000000', // a success
  '70000000 1d00 0500 07000000 2a100000', // the request's header
];
const refused = [
  '4c000000 0200 0003 08000000 2a100000', // 76 bytes, NLMSG_ERROR, capped and with attributes, sequence 8
  'eaffffff', // -22
  '20000000 1d00 0500 08000000 2a100000',
  '1900 0100 6e6f2073756368207468696e672074686572652100 000000', // MSG: 21 bytes of text with its zero, filled to 28
  '0c00 0200 00000000 00000000', // another attribute, of 8 bytes
];

describe('a request', () => {
  it('is a message of the family with its attributes, each filled to 4 bytes', () => {
    const attributes: readonly Attribute[] = [
      { type: 1, value: { u32: 3 } },
      { type: 2, value: { u64: 2 ** 40 + 512 } },
      { type: 10, value: { text: 'abcd' } },
      { type: 7, value: { nested: [{ type: 1, value: { nested: [{ type: 1, value: { u32: 9 } }] } }] } },
    ];
    const request = { family: 29, command: 1, version: 1, flags: 5, sequence: 7, attributes };
    expect(Buffer.from(encodeRequest(request)).toString('hex')).toBe(
      hex(
        '44000000 1d00 0500 07000000 00000000', // 68 bytes to family 29, REQUEST | ACK, sequence 7, port 0
        '01 01 0000',
        '0800 0100 03000000',
        '0c00 0200 0002000000010000',
        '0900 0a00 61626364 00 000000', // with its zero
        '1000 0780 0c00 0180 0800 0100 09000000', // nested twice
      ).toString('hex'),
    );
  });

  it('has no attribute longer than its length can tell', () => {
    const attributes = [{ type: 10, value: { text: 'x'.repeat(65_531) } }];
    const encode = () => encodeRequest({ family: 29, command: 1, version: 1, flags: 5, sequence: 1, attributes });
    expect(encode).toThrow('an attribute of 65536 bytes is too long');
    attributes[0] = { type: 10, value: { text: 'x'.repeat(65_530) } };
    expect(encode().length).toBe(20 + 65_536);
  });
});

describe('an answer', () => {
  it('is a message and its acknowledgement, in one datagram or in two', () => {
    const answers = parseAnswers(hex(...connected, ...acknowledged));
    expect(answers).toEqual([...parseAnswers(hex(...connected)), ...parseAnswers(hex(...acknowledged))]);
    const [message, ack] = answers;
    expect(message).toMatchObject({ kind: 'message', sequence: 7 });
    expect(message?.kind === 'message' && attributeInteger(message.attributes, 1, 4)).toBe(3);
    expect(ack).toEqual({ kind: 'ack', sequence: 7, errno: 0, text: '' });
  });

  it('to what is refused has the errno and the kernel’s own words', () => {
    expect(parseAnswers(hex(...refused))).toEqual([
      { kind: 'ack', sequence: 8, errno: 22, text: 'no such thing there!' },
    ]);
  });

  it('has the words behind the whole request where that is not left out', () => {
    const request = '18000000 1d00 0500 08000000 2a100000 02010000 aabbccdd';
    const whole = hex(
      '3c000000 0200 0002 08000000 2a100000',
      'f0ffffff',
      request,
      '1000 0100 627573792062757379 00 0000',
    );
    whole.writeUInt32LE(whole.length, 0);
    expect(parseAnswers(whole)).toEqual([{ kind: 'ack', sequence: 8, errno: 16, text: 'busy busy' }]);
  });

  it('that is cut anywhere is an error, never a wrong answer', () => {
    const whole = hex(...connected, ...refused);
    const ends = new Set([0, 28, whole.length]);
    for (let length = 0; length <= whole.length; length += 1) {
      const parse = () => parseAnswers(whole.subarray(0, length));
      if (ends.has(length)) expect(parse().length).toBe([...ends].indexOf(length));
      else expect(parse, `cut after ${length} bytes`).toThrow(KernelError);
    }
  });

  it.each([
    ['a message shorter than its header', '0f000000 1d00 0000 07000000 2a100000'],
    ['a message of a family without its header', '12000000 1d00 0000 07000000 2a100000 0101 0000'],
    ['a message longer than the datagram', '18000000 1d00 0000 07000000 2a100000 01010000'],
    ['an attribute shorter than its header', '18000000 1d00 0000 07000000 2a100000 01010000 0300 0100'],
    ['an attribute longer than its message', '1c000000 1d00 0000 07000000 2a100000 01010000 0900 0100 03000000'],
    ['an acknowledgement without the request', '14000000 0200 0001 07000000 2a100000 00000000'],
    ['an errno that is none', '24000000 0200 0001 07000000 2a100000 01000000 10000000 1d000500 07000000 00000000'],
    [
      'words behind a request that is longer than the answer',
      '28000000 0200 0002 07000000 2a100000 eaffffff ffffffff 1d000500 07000000 00000000 04000100',
    ],
    [
      'words behind a request that is shorter than its header',
      '28000000 0200 0002 07000000 2a100000 eaffffff 04000000 04000000 04000000 04000000 04000100',
    ],
  ])('is not believed: %s', (_, bytes) => {
    expect(() => parseAnswers(hex(bytes))).toThrow('is not understood');
  });

  it('of any bytes is answers or an error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(3), (bytes, flags) => {
        if (bytes.length >= 8) {
          bytes.set([bytes.length, 0, 0, 0, 2, 0, 0, flags]); // most would end at the first length
        }
        try {
          for (const answer of parseAnswers(bytes)) expect(answer.sequence).toBeGreaterThanOrEqual(0);
        } catch (error) {
          expect(error).toBeInstanceOf(KernelError);
        }
      }),
    );
  });
});

describe('attributes', () => {
  it('are found by type, whatever flags it has, and may be empty', () => {
    const attributes = parseAttributes(hex('0400 0100', '0600 0780 aabb 0000', '0500 0240 07'));
    expect([...attributes].map(([type, value]) => [type, Buffer.from(value).toString('hex')])).toEqual([
      [1, ''],
      [7, 'aabb'],
      [2, '07'],
    ]);
  });

  it('hold integers of the length that is asked for', () => {
    const attributes = parseAttributes(hex('0600 0100 1d00 0000', '0800 0200 03000100'));
    expect(attributeInteger(attributes, 1, 2)).toBe(29);
    expect(attributeInteger(attributes, 2, 4)).toBe(65_539);
    for (const [type, bytes] of [
      [1, 4],
      [2, 2],
      [3, 4],
    ] as const) {
      expect(() => attributeInteger(attributes, type, bytes)).toThrow(`the attribute ${type} of a wrong length`);
    }
  });
});
