import { closeSync, writeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { makePipe, type Pipe } from '#tsnbd/kernel/pipe-calls.js';
import {
  NBD_CMD_DISC,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_EIO,
} from '#tsnbd/protocol/constants.js';
import { CALLS, HELD, type Loop, PLACES, startLoop } from './loop-harness.js';

// The first blocks are read from pipes, each when the test has written into it; the others from memory, at once.

const BLOCK = 4_096;
const SLOW = 4;
let loop: Loop;
let pipes: Pipe[];

function start(options: Parameters<typeof startLoop>[0] = {}): void {
  loop = startLoop({ slowFds: pipes.map(({ readFd }) => readFd), ...options });
}

beforeEach(() => {
  pipes = Array.from({ length: SLOW }, () => {
    const pipe = makePipe();
    if (pipe === undefined) throw new Error('no pipe');
    return pipe;
  });
});
afterEach(async () => {
  loop.client.close();
  for (const { writeFd } of pipes) closeSync(writeFd);
  await loop.end;
  for (const { readFd } of pipes) closeSync(readFd);
});

const read = (block: number) => ({ type: NBD_CMD_READ, offsetBytes: block * BLOCK, lengthBytes: BLOCK });
const write = (block: number, byte: number) => ({
  type: NBD_CMD_WRITE,
  offsetBytes: block * BLOCK,
  data: Buffer.alloc(BLOCK, byte),
});

function send(...requests: Parameters<Loop['client']['encode']>[0][]): void {
  loop.client.send(Buffer.concat(requests.map((request) => loop.client.encode(request))));
}

/** The disk has read a block. */
function finish(block: number, byte = 100 + block): void {
  writeSync(pipes[block]?.writeFd ?? -1, Buffer.alloc(BLOCK, byte));
}

const reply = async () => {
  const { cookie, error, data } = await loop.client.reply();
  return { cookie, error, byte: data.at(-1), length: data.length };
};
const of = (cookie: number, byte: number) => ({ cookie, error: 0, byte, length: BLOCK });

test('reads of a disk are answered when they are done, in whatever order', async () => {
  start();
  send(read(0), read(1), read(2));
  finish(2);
  expect(await reply()).toEqual(of(3, 102));
  finish(0);
  expect(await reply()).toEqual(of(1, 100));
  send(read(3));
  finish(3);
  expect(await reply()).toEqual(of(4, 103));
  finish(1);
  expect(await reply()).toEqual(of(2, 101));
});

describe('while reads are on their way', () => {
  beforeEach(() => start());

  test('other requests are answered', async () => {
    loop.memory.fill(7, 9 * BLOCK, 10 * BLOCK);
    send(read(0), read(1));
    for (const [index, request] of [
      read(9),
      write(8, 5),
      { type: NBD_CMD_FLUSH },
      { type: NBD_CMD_TRIM, offsetBytes: 5 * BLOCK, lengthBytes: BLOCK },
    ].entries()) {
      send(request);
      expect(await loop.client.reply()).toMatchObject({ error: 0, cookie: 3 + index });
    }
    finish(1);
    expect(await reply()).toEqual(of(2, 101));
    finish(0);
    expect(await reply()).toEqual(of(1, 100));
  });

  test('what would change their bytes is done behind them', async () => {
    send(read(0), read(1));
    await expect.poll(() => loop.count(PLACES)).toBe(2);
    send(write(1, 5), read(9));
    finish(0);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(loop.count(CALLS.WRITE)).toBe(0);
    finish(1);
    expect(await reply()).toEqual(of(1, 100));
    expect(await reply()).toEqual(of(2, 101));
    expect(await loop.client.reply()).toMatchObject({ error: 0, cookie: 3 });
    expect(await loop.client.reply()).toMatchObject({ error: 0, cookie: 4 });
    expect(loop.memory[BLOCK]).toBe(5);
  });

  test('their places are kept, and let go with the last', async () => {
    send(read(0), read(1));
    finish(1);
    await reply();
    expect(loop.count(PLACES)).toBe(2);
    finish(0);
    await reply();
    send(read(9));
    await loop.client.reply();
    expect(loop.count(PLACES)).toBe(0);
  });

  test('one that could not be had in this way is read anew, and tells its own error', async () => {
    loop.memory.fill(9, 0, BLOCK);
    send(read(0), read(1));
    writeSync(pipes[0]?.writeFd ?? -1, Buffer.alloc(100)); // less than was asked for
    expect(await reply()).toEqual(of(1, 9));
    loop.fail(CALLS.READ, 5);
    writeSync(pipes[1]?.writeFd ?? -1, Buffer.alloc(100));
    expect(await loop.client.reply()).toMatchObject({ error: NBD_EIO, cookie: 2 });
    loop.fail(CALLS.READ, 0);
  });

  test('a client that says goodbye has its answers first', async () => {
    send(read(0), read(1));
    await expect.poll(() => loop.count(PLACES)).toBe(2);
    send({ type: NBD_CMD_DISC });
    await new Promise((resolve) => setTimeout(resolve, 50));
    finish(1);
    finish(0);
    const cookies = [(await reply()).cookie, (await reply()).cookie];
    expect(cookies.sort()).toEqual([1, 2]);
    expect(await loop.end).toMatchObject({ kind: 'left', how: 'disconnected' });
  });

  test('a stop lets them be answered', async () => {
    send(read(0), read(1), read(9));
    expect(await loop.client.reply()).toMatchObject({ cookie: 3 });
    loop.stop();
    finish(0);
    finish(1);
    const cookies = [(await reply()).cookie, (await reply()).cookie];
    expect(cookies.sort()).toEqual([1, 2]);
    expect(await loop.end).toMatchObject({ kind: 'left', how: 'stopped' });
  });

  test('a halt waits for them', async () => {
    send(read(0), read(1), read(9));
    expect(await loop.client.reply()).toMatchObject({ cookie: 3 });
    loop.halt();
    finish(0);
    finish(1);
    const cookies = [(await reply()).cookie, (await reply()).cookie];
    expect(cookies.sort()).toEqual([1, 2]);
    expect(await loop.end).toMatchObject({ kind: 'left', how: 'halted' });
  });
});

test('more reads than there is room for are begun as others end', async () => {
  start();
  const count = 200;
  send(read(0), ...Array.from({ length: count }, () => read(1)));
  const seen = new Set<number>();
  for (let n = 0; n < count; n += 1) {
    finish(1);
    seen.add((await reply()).cookie);
  }
  expect(seen.size).toBe(count);
  finish(0);
  expect((await reply()).cookie).toBe(1);
});

test('a flush that takes long is answered beside reads that take long', async () => {
  const fds = makePipe();
  if (fds === undefined) throw new Error('no pipe');
  start({ flushFd: fds.readFd });
  loop.fail(CALLS.FLUSH, -1);
  send({ type: NBD_CMD_FLUSH });
  await expect.poll(() => loop.count(HELD)).toBe(1);
  await new Promise((resolve) => setTimeout(resolve, 150)); // so it is known to be slow
  loop.fail(CALLS.FLUSH, 0);
  expect(await loop.client.reply()).toMatchObject({ error: 0, cookie: 1 });
  loop.fail(CALLS.FLUSH, -1);
  send(read(0), { type: NBD_CMD_FLUSH }, read(9));
  expect(await loop.client.reply()).toMatchObject({ error: 0, cookie: 4 });
  loop.fail(CALLS.FLUSH, 0);
  writeSync(fds.writeFd, 'x');
  expect(await loop.client.reply()).toMatchObject({ error: 0, cookie: 3 });
  finish(0);
  expect((await reply()).cookie).toBe(2);
  for (const fd of [fds.readFd, fds.writeFd]) closeSync(fd);
});
