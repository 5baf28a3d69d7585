import type { TransmissionTerms } from '#tsnbd/protocol/awaited-reply.js';
import type { ClientRequest } from '#tsnbd/protocol/client-transmission.js';
import { DEFAULT_BLOCK_SIZES } from '#tsnbd/protocol/export-info.js';
import type { ReplyStyle } from '#tsnbd/protocol/reply.js';
import { join, wire } from './wire.js';

/** Requests of our client in their order, and what a server says to them. */
export interface Transmission {
  readonly terms: TransmissionTerms;
  readonly requests: readonly ClientRequest[];
  readonly requestBytes: Uint8Array;
  readonly answer: Uint8Array;
  /** In the order in which they become whole. */
  readonly replies: readonly object[];
}

const [READ, WRITE, FLUSH, BLOCK_STATUS] = [0, 1, 3, 7];
const contexts = [
  { id: 1, name: 'base:allocation' },
  { id: 9, name: 'qemu:allocation-depth' },
];
const terms = (replyStyle: ReplyStyle): TransmissionTerms => ({
  replyStyle,
  sizeBytes: 1_048_576,
  contexts: replyStyle === 'simple' ? [] : contexts,
  blockSizes: DEFAULT_BLOCK_SIZES,
});
const read = { type: READ, offsetBytes: 4096, lengthBytes: 8 };
const done = { error: 0, message: '' };

export const transmissions: Readonly<Record<string, Transmission>> = {
  'simple replies, the second first': {
    terms: terms('simple'),
    requests: [read, { type: WRITE, offsetBytes: 512, data: wire('"abcd"') }, { type: FLUSH }],
    requestBytes: wire(`
      25609513 0000 0000 # READ
      c0ffee00 00000001  # cookie
      0000000000001000   # offset
      00000008           # length
      25609513 0000 0001 # WRITE
      c0ffee00 00000002
      0000000000000200
      00000004
      "abcd"
      25609513 0000 0003 # FLUSH
      c0ffee00 00000003
      0000000000000000
      00000000
    `),
    answer: wire(`
      67446698 00000000 # no error
      c0ffee00 00000002
      67446698 00000000
      c0ffee00 00000001
      "datadata"
      67446698 00000005 # EIO
      c0ffee00 00000003
    `),
    replies: [
      { number: 2, reply: done },
      { number: 1, reply: { ...done, data: wire('"datadata"') } },
      { number: 3, reply: { error: 5 } },
    ],
  },
  'chunks of two replies between each other': {
    terms: terms('structured'),
    requests: [read, { type: BLOCK_STATUS, offsetBytes: 0, lengthBytes: 8192 }],
    requestBytes: wire(`
      25609513 0000 0000 c0ffee00 00000001 0000000000001000 00000008
      25609513 0000 0007 c0ffee00 00000002 0000000000000000 00002000
    `),
    answer: wire(`
      668e33ef 0000 0001 # OFFSET_DATA
      c0ffee00 00000001
      0000000b           # payload
      0000000000001005   # offset
      "end"
      668e33ef 0000 0005 # BLOCK_STATUS
      c0ffee00 00000002
      00000014
      00000001           # context
      00001000 00000000  # data
      00004000 00000003  # a hole, beyond what was asked
      668e33ef 0000 0002 # OFFSET_HOLE
      c0ffee00 00000001
      0000000c
      0000000000001000
      00000005
      668e33ef 0001 0005 # BLOCK_STATUS, DONE
      c0ffee00 00000002
      0000000c
      00000009
      00000200 00000001
      668e33ef 0001 0000 # NONE, DONE
      c0ffee00 00000001
      00000000
    `),
    replies: [
      {
        number: 2,
        reply: {
          ...done,
          chunkTypes: [5, 5],
          chunkFlags: 1,
          extents: new Map([
            [
              1,
              [
                { lengthBytes: 4096, status: 0 },
                { lengthBytes: 16_384, status: 3 },
              ],
            ],
            [9, [{ lengthBytes: 512, status: 1 }]],
          ]),
        },
      },
      { number: 1, reply: { ...done, chunkTypes: [1, 2, 0], data: join([wire('0000000000'), wire('"end"')]) } },
    ],
  },
  'errors, with places and words': {
    terms: terms('structured'),
    requests: [read, { type: BLOCK_STATUS, lengthBytes: 512 }, { type: FLUSH }],
    requestBytes: wire(`
      25609513 0000 0000 c0ffee00 00000001 0000000000001000 00000008
      25609513 0000 0007 c0ffee00 00000002 0000000000000000 00000200
      25609513 0000 0003 c0ffee00 00000003 0000000000000000 00000000
    `),
    answer: wire(`
      668e33ef 0000 8002 # ERROR_OFFSET
      c0ffee00 00000001
      00000018
      00000005           # EIO
      000a               # length of the words
      "bad sector"
      0000000000001003   # offset
      668e33ef 0001 8001 # ERROR, DONE
      c0ffee00 00000001
      00000006
      0000001c           # ENOSPC
      0000
      668e33ef 0003 8123 # an error and a flag from the future
      c0ffee00 00000002
      0000000a
      00000063           # no error of the specification
      0002
      "no"
      "xx"               # whatever follows there
      67446698 0000006c  # ESHUTDOWN
      c0ffee00 00000003
    `),
    replies: [
      { number: 1, reply: { error: 5, message: 'bad sector', errorOffsets: [4099], chunkTypes: [0x8002, 0x8001] } },
      { number: 2, reply: { error: 99, message: 'no', chunkFlags: 3 } },
      { number: 3, reply: { error: 108, message: '', chunkTypes: [] } },
    ],
  },
  'extended headers': {
    terms: terms('extended'),
    requests: [
      { type: BLOCK_STATUS, offsetBytes: 4096, lengthBytes: 2 ** 40 },
      { type: WRITE, data: wire('"ab"') },
    ],
    requestBytes: wire(`
      21e41c71 0000 0007 c0ffee00 00000001 0000000000001000 0000010000000000
      21e41c71 0020 0001 c0ffee00 00000002 0000000000000000 0000000000000002 # PAYLOAD_LEN
      "ab"
    `),
    answer: wire(`
      6e8a278c 0000 0006 # BLOCK_STATUS_EXT
      c0ffee00 00000001
      0000000000001000   # offset of the request
      0000000000000018   # payload
      00000009           # context
      00000001           # descriptors
      0000000300000000 0000000000000002
      6e8a278c 0001 0006 # BLOCK_STATUS_EXT, DONE
      c0ffee00 00000001
      0000000000001000
      0000000000000028
      00000001
      00000002
      0000000000001000 0000000000000003
      0000000000002000 0000000000000000
      6e8a278c 0001 0000 # NONE, DONE
      c0ffee00 00000002
      0000000000000000
      0000000000000000
    `),
    replies: [
      {
        number: 1,
        reply: {
          ...done,
          extents: new Map([
            [9, [{ lengthBytes: 3 * 2 ** 32, status: 2 }]],
            [
              1,
              [
                { lengthBytes: 4096, status: 3 },
                { lengthBytes: 8192, status: 0 },
              ],
            ],
          ]),
        },
      },
      { number: 2, reply: done },
    ],
  },
};
