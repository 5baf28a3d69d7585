import { closeSync, writeSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { socketPair } from '#tsnbd/kernel/fd-calls.js';
import {
  NBD_CMD_DISC,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_EIO,
} from '#tsnbd/protocol/constants.js';
import { CALLS, type Loop, startLoop } from './loop-harness.js';

// The image takes four writes at a time, by the tickets 0, 1, 2 and so on; a write by itself is not begun.

let loop: Loop;
let fds: readonly [number, number];

beforeEach(() => {
  fds = socketPair();
  loop = startLoop({ begunFd: fds[0] });
});
afterEach(async () => {
  loop.client.close();
  loop.finish({ done: Array.from({ length: 31 }, (_, ticket) => ticket) });
  await loop.end;
  for (const fd of fds) closeSync(fd);
});

const write = (block: number, byte = 1 + block) => ({
  type: NBD_CMD_WRITE,
  offsetBytes: block * 512,
  data: Buffer.alloc(512, byte),
});
const read = (block: number) => ({ type: NBD_CMD_READ, offsetBytes: block * 512, lengthBytes: 512 });

function send(...requests: Parameters<Loop['client']['encode']>[0][]): void {
  loop.client.send(Buffer.concat(requests.map((request) => loop.client.encode(request))));
}

/** Says that writes are done, and wakes whoever waits for that. */
function finish(done: readonly number[], failed: readonly number[] = []): void {
  loop.finish({ done, failed });
  writeSync(fds[1], 'x');
}

test('each is answered when it is done, in whatever order, with its own error', async () => {
  send(write(0), write(1), write(2), write(3));
  finish([2]);
  expect(await loop.client.reply()).toMatchObject({ error: 0, cookie: 3 });
  finish([], [1]);
  expect(await loop.client.reply()).toMatchObject({ error: NBD_EIO, cookie: 2 });
  finish([0, 3]);
  const rest = [await loop.client.reply(), await loop.client.reply()];
  expect(rest.map(({ error, cookie }) => [error, cookie])).toEqual([
    [0, 1],
    [0, 4],
  ]);
  expect([...loop.memory.subarray(0, 2048)].filter((_, at) => at % 512 === 0)).toEqual([1, 0, 3, 4]);
});

test('what comes while they are done is begun beside them, until there is no room', async () => {
  send(write(0), write(1));
  send(write(2), write(3), write(4));
  finish([1]);
  expect(await loop.client.reply()).toMatchObject({ error: 0, cookie: 2 });
  finish([0, 2, 3, 4]);
  const cookies = [];
  for (let n = 0; n < 4; n += 1) cookies.push((await loop.client.reply()).cookie);
  expect(cookies.sort()).toEqual([1, 3, 4, 5]);
  expect(loop.count(CALLS.WRITE)).toBe(0);
});

test('a read of something else is answered meanwhile, one of what they write when they are done', async () => {
  send(write(0, 9), write(1), read(7), read(0));
  expect(await loop.client.reply()).toMatchObject({ error: 0, cookie: 3 });
  finish([0]);
  finish([1]);
  const replies = [await loop.client.reply(), await loop.client.reply(), await loop.client.reply()];
  const last = replies.find(({ cookie }) => cookie === 4);
  expect(last).toMatchObject({ error: 0, data: Buffer.alloc(512, 9) });
});

test('a flush, and a write that is to be durable, are done behind them', async () => {
  send(write(0), write(1), { type: NBD_CMD_FLUSH });
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(loop.count(CALLS.FLUSH)).toBe(0);
  finish([0, 1]);
  for (const cookie of [1, 2, 3]) expect(await loop.client.reply()).toMatchObject({ error: 0, cookie });
  send(write(0), write(1), { ...write(2), flags: NBD_CMD_FLAG_FUA });
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(loop.count(CALLS.DURABLE)).toBe(0);
  finish([2, 3]);
  for (const cookie of [4, 5, 6]) expect(await loop.client.reply()).toMatchObject({ error: 0, cookie });
  expect(loop.count(CALLS.DURABLE)).toBe(1);
});

test('a client that says goodbye leaves none behind', async () => {
  send(write(0), write(1), { type: NBD_CMD_DISC });
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(loop.count(CALLS.FLUSH)).toBe(0);
  finish([0, 1]);
  expect(await loop.end).toMatchObject({ kind: 'left', how: 'disconnected' });
  expect(loop.count(CALLS.FLUSH)).toBe(1);
  expect([loop.memory[0], loop.memory[512]]).toEqual([1, 2]);
});

test('a client that reads no answers holds none of them up: others may wait for them', async () => {
  const reads = Array.from({ length: 32 }, (_, n) => ({
    type: NBD_CMD_READ,
    offsetBytes: 4096 * (n + 1),
    lengthBytes: 524_288,
  }));
  loop.client.pause();
  send(write(0), write(1), ...reads);
  await expect.poll(() => loop.count(CALLS.READ)).toBeGreaterThan(0);
  await new Promise((resolve) => setTimeout(resolve, 200)); // now it waits for the client
  expect(loop.count(CALLS.READ)).toBeLessThan(reads.length);
  finish([1], [0]);
  await expect.poll(() => loop.memory[512]).toBe(2);
  loop.client.resume();
  const replies = [];
  for (let n = 0; n < 34; n += 1) replies.push(await loop.client.reply());
  expect(replies.filter(({ error }) => error !== 0).map(({ cookie }) => cookie)).toEqual([1]);
  expect(replies.map(({ cookie }) => cookie).sort((a, b) => a - b)).toEqual(
    Array.from({ length: 34 }, (_, n) => n + 1),
  );
});
