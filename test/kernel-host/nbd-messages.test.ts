import { expect, it } from 'vitest';
import {
  connectedIndex,
  connectQuestion,
  disconnectQuestion,
  type NbdQuestion,
  reconfigureQuestion,
} from '#tsnbd/kernel/nbd-messages.js';
import { encodeRequest, parseAnswers, parseAttributes } from '#tsnbd/kernel/netlink-codec.js';

// <linux/nbd-netlink.h> gives the numbers, drivers/block/nbd.c (nbd_attr_policy) their sizes.

const hex = (...parts: readonly string[]) => Buffer.from(parts.join('').replaceAll(' ', ''), 'hex');

function expectBytes(question: NbdQuestion, ...parts: readonly string[]): void {
  const bytes = encodeRequest({ family: 29, flags: 5, sequence: 7, ...question });
  expect(Buffer.from(bytes).toString('hex')).toBe(hex(...parts).toString('hex'));
}

const setup = {
  index: 3,
  sizeBytes: 2 ** 33,
  blockSizeBytes: 4096,
  requestTimeoutSeconds: 0,
  deadTimeoutSeconds: 300,
  flags: 0x10d,
  clientFlags: 1,
  identifier: 'blue',
  sockets: [9, 10],
};
const SETTINGS = [
  '0c00 0200 0000000002000000', // SIZE_BYTES
  '0c00 0300 0010000000000000', // BLOCK_SIZE_BYTES
  '0c00 0400 0000000000000000', // TIMEOUT: 0 is told, too
  '0c00 0800 2c01000000000000', // DEAD_CONN_TIMEOUT
  '0c00 0500 0d01000000000000', // SERVER_FLAGS
  '0c00 0600 0100000000000000', // CLIENT_FLAGS
  '0900 0a00 626c7565 00 000000', // BACKEND_IDENTIFIER
  '1c00 0780', // SOCKETS, nested
  '0c00 0180 0800 0100 09000000', // ITEM, nested: FD
  '0c00 0180 0800 0100 0a000000',
];

it('CONNECT tells all of a device, and where the kernel is to choose it no number', () => {
  expectBytes(
    connectQuestion(setup),
    '8c000000 1d00 0500 07000000 00000000 01 01 0000', // 140 bytes, CONNECT, version 1
    '0800 0100 03000000', // INDEX
    ...SETTINGS,
  );
  expectBytes(
    connectQuestion({ ...setup, index: undefined }),
    '84000000 1d00 0500 07000000 00000000 01 01 0000',
    ...SETTINGS,
  );
});

it('the answer to CONNECT is the number of the device', () => {
  const [answer] = parseAnswers(hex('1c000000 1d00 0000 07000000 2a100000 01 01 0000', '0800 0100 03000000'));
  expect(answer?.kind === 'message' && connectedIndex(answer.attributes)).toBe(3);
  expect(() => connectedIndex(new Map())).toThrow('is not understood');
});

it('RECONFIGURE tells what changes, and whose the device is', () => {
  const head = (bytes: string) => [
    `${bytes}000000 1d00 0500 07000000 00000000 03 01 0000`,
    '0800 0100 03000000',
    '0900 0a00 626c7565 00 000000',
  ];
  expectBytes(reconfigureQuestion(3, 'blue', {}), ...head('28'));
  expectBytes(
    reconfigureQuestion(3, 'blue', { socket: 9 }),
    ...head('38'),
    '1000 0780 0c00 0180 0800 0100 09000000', // SOCKETS: ITEM: FD
  );
  expectBytes(
    reconfigureQuestion(3, 'blue', { clientFlags: 3 }),
    ...head('34'),
    '0c00 0600 0300000000000000', // CLIENT_FLAGS
  );
  expectBytes(
    reconfigureQuestion(3, 'blue', { sizeBytes: 2 ** 33, blockSizeBytes: 4096 }),
    ...head('40'),
    '0c00 0200 0000000002000000',
    '0c00 0300 0010000000000000',
  );
  expectBytes(
    reconfigureQuestion(3, 'blue', { requestTimeoutSeconds: 1, deadTimeoutSeconds: 0 }),
    ...head('40'),
    '0c00 0400 0100000000000000', // TIMEOUT
    '0c00 0800 0000000000000000', // DEAD_CONN_TIMEOUT
  );
});

it('DISCONNECT tells the number alone', () => {
  expectBytes(disconnectQuestion(3), '1c000000 1d00 0500 07000000 00000000 02 01 0000', '0800 0100 03000000');
});

// Neither is asked for (native-notes/nbd-netlink.md), but both are spoken as the others are.
it('LINK_DEAD, which the kernel sends to a group, and the answer to STATUS are messages of the same kind', () => {
  const [dead] = parseAnswers(hex('1c000000 1d00 0000 00000000 00000000 04 01 0000', '0800 0100 03000000'));
  expect(dead).toMatchObject({ kind: 'message', sequence: 0 });
  expect(dead?.kind === 'message' && connectedIndex(dead.attributes)).toBe(3);

  const [status] = parseAnswers(
    hex(
      '2c000000 1d00 0000 07000000 2a100000 05 01 0000',
      '1800 0980 1400 0180', // DEVICE_LIST: ITEM
      '0800 0100 03000000 0500 0200 01 000000', // INDEX, CONNECTED
    ),
  );
  const within = (bytes: Uint8Array | undefined, type: number) => parseAttributes(bytes ?? hex()).get(type);
  const item = status?.kind === 'message' ? within(status.attributes.get(9), 1) : undefined;
  expect(within(item, 1)).toEqual(hex('03000000'));
  expect(within(item, 2)).toEqual(hex('01'));
});
