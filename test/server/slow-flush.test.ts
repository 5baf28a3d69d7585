import { closeSync, writeSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { socketPair } from '#tsnbd/kernel/fd-calls.js';
import { NBD_CMD_DISC, NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_WRITE, NBD_EIO } from '#tsnbd/protocol/constants.js';
import { CALLS, type Loop, startLoop } from './loop-harness.js';

const FLUSH = { type: NBD_CMD_FLUSH };
const WRITE = { type: NBD_CMD_WRITE, data: Buffer.alloc(512, 7) };
const READ = { type: NBD_CMD_READ, lengthBytes: 512 };

let loop: Loop;
let fds: readonly [number, number];

afterEach(async () => {
  loop.client.close();
  await loop.end;
  for (const fd of fds) closeSync(fd);
});

/** A connection whose first FLUSH was slow, so that the next ones are begun, and held up. */
async function startSlow(): Promise<void> {
  fds = socketPair();
  loop = startLoop({ flushFd: fds[0] });
  loop.fail(CALLS.FLUSH, -1);
  loop.client.send(loop.client.encode(FLUSH));
  await expect.poll(() => loop.count(CALLS.FLUSH)).toBe(1);
  await new Promise((resolve) => setTimeout(resolve, 5));
  loop.fail(CALLS.FLUSH, 0);
  expect(await loop.client.reply()).toMatchObject({ error: 0, cookie: 1 });
  loop.fail(CALLS.FLUSH, -1);
}

function goOn(errno = 0): void {
  loop.fail(CALLS.FLUSH, errno);
  writeSync(fds[1], 'x');
}

test('a slow flush holds up no request behind it, and is answered when it is done', async () => {
  await startSlow();
  const { client } = loop;
  client.send(Buffer.concat([FLUSH, WRITE, READ].map((request) => client.encode(request))));
  expect(await client.reply()).toMatchObject({ error: 0, cookie: 3 });
  expect(await client.reply()).toMatchObject({ error: 0, cookie: 4, data: WRITE.data });
  client.send(client.encode(READ));
  expect(await client.reply()).toMatchObject({ error: 0, cookie: 5, data: WRITE.data });
  goOn();
  expect(await client.reply()).toMatchObject({ error: 0, cookie: 2 });
  expect(await client.ask(READ)).toMatchObject({ error: 0 });
  expect(loop.count(CALLS.FLUSH)).toBe(2);
});

test('a client that never pauses gets the answer too', async () => {
  await startSlow();
  const { client } = loop;
  client.send(client.encode(FLUSH));
  expect(await client.ask(READ)).toMatchObject({ error: 0 });
  // Nobody is told that it is done: whoever does not wait for requests must look by itself.
  loop.fail(CALLS.FLUSH, 0);
  client.send(client.encode(READ));
  expect([(await client.reply()).cookie, (await client.reply()).cookie]).toEqual([4, 2]);
});

test('those that come meanwhile are answered together by the next one', async () => {
  await startSlow();
  const { client } = loop;
  client.send(Buffer.concat([FLUSH, FLUSH, WRITE, FLUSH, READ].map((request) => client.encode(request))));
  expect([(await client.reply()).cookie, (await client.reply()).cookie]).toEqual([4, 6]);
  goOn();
  const cookies = [await client.reply(), await client.reply(), await client.reply()].map(({ cookie }) => cookie);
  expect(cookies).toEqual([2, 3, 5]);
  expect(loop.count(CALLS.FLUSH)).toBe(3);
});

test('however many come, each is answered', async () => {
  await startSlow();
  const { client } = loop;
  const requests = Array.from({ length: 100 }, (_, index) => (index % 3 === 0 ? WRITE : FLUSH));
  client.send(Buffer.concat(requests.map((request) => client.encode(request))));
  expect(await client.reply()).toMatchObject({ error: 0, cookie: 2 });
  goOn();
  const cookies = new Set<number>();
  for (const _ of requests.slice(1)) cookies.add((await client.reply()).cookie);
  expect(cookies.size).toBe(99);
});

test('its failure is answered', async () => {
  await startSlow();
  loop.client.send(loop.client.encode(FLUSH));
  expect(await loop.client.ask(READ)).toMatchObject({ error: 0 });
  goOn(5);
  expect(await loop.client.reply()).toMatchObject({ error: NBD_EIO, cookie: 2 });
  goOn();
});

test.each(['a goodbye', 'a stop'])('is answered before %s ends the connection', async (how) => {
  await startSlow();
  const { client } = loop;
  client.send(client.encode(FLUSH));
  expect(await client.ask(READ)).toMatchObject({ error: 0 });
  if (how === 'a stop') loop.stop();
  else client.send(client.encode({ type: NBD_CMD_DISC }));
  await new Promise((resolve) => setTimeout(resolve, 20));
  goOn();
  expect(await client.reply()).toMatchObject({ error: 0, cookie: 2 });
  expect((await loop.end).kind).toBe('left');
});
