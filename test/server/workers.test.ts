import { closeSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type OpenedImage, openImage } from '#tsnbd/image/open-image.js';
import { duplicateFd, socketPair } from '#tsnbd/kernel/fd-calls.js';
import {
  NBD_CMD_DISC,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
} from '#tsnbd/protocol/constants.js';
import { imageFlags, rulesOf } from '#tsnbd/server/exports.js';
import { PIPED_BYTES_MIN } from '#tsnbd/server/piped-reads.js';
import { INPUT_BYTES } from '#tsnbd/server/request-input.js';
import { startWorker } from '#tsnbd/server/spare-workers.js';
import { type ServedConnection, startConnection } from '#tsnbd/server/workers.js';
import { long } from '../long.js';
import { openedAs } from '../open-fds.js';
import { type AskedRequest, RawClient, type Reply } from './raw-client.js';
import { seeded } from './seeded.js';

const SIZE_BYTES = 4_194_304;
const BATCHES = long ? 2_000 : 60;
let folder: string;
let path: string;
let image: OpenedImage;
const clients: RawClient[] = [];
const connections: ServedConnection[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-workers-'));
  path = join(folder, 'disk.raw');
  writeFileSync(path, Buffer.alloc(SIZE_BYTES));
  image = openImage(path, { format: 'raw', readOnly: false });
});
afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  await Promise.all(connections.splice(0).map((connection) => connection.ended));
  image.close();
  rmSync(folder, { recursive: true });
});

function start(
  received = new Uint8Array(0),
  worker?: Worker,
): { client: RawClient; connection: ServedConnection; socketFd: number; socket: string } {
  const [clientFd, socketFd] = socketPair();
  const socket = openedAs(socketFd);
  const rules = rulesOf(image, { flags: imageFlags(image, true), replyStyle: 'simple', statusContexts: 0 });
  const task = { socketFd, image: image.handle, rules, contexts: [], received };
  const connection = worker === undefined ? startConnection(task) : startConnection(task, worker, false);
  const client = RawClient.onFd(clientFd);
  clients.push(client);
  connections.push(connection);
  return { client, connection, socketFd, socket };
}

/** A range of the image, mostly small, at times as long as a large request. */
function anyRange(random: (below: number) => number): { offsetBytes: number; lengthBytes: number } {
  const lengthBytes = random(20) === 0 ? random(3_000_000) : random(20_000);
  return { offsetBytes: random(SIZE_BYTES - lengthBytes + 1), lengthBytes };
}

interface ModelAnswer {
  readonly data: Buffer;
  /** Trimmed bytes may be zeroes or what they were. */
  readonly trimmed: Uint8Array | undefined;
}

/** The image in memory, slow and simple: does a request in turn and says what its answer must be. */
class Model {
  readonly bytes = Buffer.alloc(SIZE_BYTES);
  readonly #trimmed = new Uint8Array(SIZE_BYTES);

  answer({ type, offsetBytes = 0, lengthBytes = 0, data = Buffer.alloc(0) }: AskedRequest): ModelAnswer {
    const end = offsetBytes + lengthBytes;
    if (type === NBD_CMD_WRITE) {
      this.bytes.set(data, offsetBytes);
      this.#trimmed.fill(0, offsetBytes, end);
    }
    if (type === NBD_CMD_WRITE_ZEROES) {
      this.bytes.fill(0, offsetBytes, end);
      this.#trimmed.fill(0, offsetBytes, end);
    }
    if (type === NBD_CMD_TRIM) this.#trimmed.fill(1, offsetBytes, end);
    if (type !== NBD_CMD_READ) return { data: Buffer.alloc(0), trimmed: undefined };
    return { data: Buffer.from(this.bytes.subarray(offsetBytes, end)), trimmed: this.#trimmed.slice(offsetBytes, end) };
  }
}

/**
 * `request` was read, and `later` are those that the client sent behind it before it had the answer: a long READ goes out
 * as the image's pages, so that it may show what they did.
 */
function sameBytes(got: Buffer, expected: ModelAnswer, request: AskedRequest, later: readonly AskedRequest[]): boolean {
  if (got.equals(expected.data)) return true;
  if (got.length !== expected.data.length) return false;
  return got.every((byte, at) => {
    if (byte === expected.data[at] || (byte === 0 && expected.trimmed?.[at] === 1)) return true;
    const offsetBytes = (request.offsetBytes ?? 0) + at;
    return got.length >= PIPED_BYTES_MIN && later.some((one) => leaves(one, offsetBytes, byte));
  });
}

function leaves({ type, offsetBytes = 0, lengthBytes = 0, data }: AskedRequest, place: number, byte: number): boolean {
  if (place < offsetBytes || place >= offsetBytes + lengthBytes || type === NBD_CMD_READ) return false;
  return type === NBD_CMD_WRITE ? data?.[place - offsetBytes] === byte : byte === 0;
}

describe('a connection to a raw image', () => {
  test.each([1, 2, 3])('answers like a model in memory, seed %i', async (seed) => {
    const random = seeded(seed);
    const model = new Model();
    const { client } = start();
    let sent = 0;
    for (let batch = 0; batch < BATCHES; batch += 1) {
      const requests = Array.from({ length: 1 + random(32) }, () => anyRequest(random));
      client.send(Buffer.concat(requests.map((request) => client.encode(request))));
      // A FLUSH may be answered later than what was sent behind it.
      const replies = new Map<number, Reply>();
      for (const _ of requests) {
        const reply = await client.reply();
        replies.set(reply.cookie, reply);
      }
      for (const [index, request] of requests.entries()) {
        const expected = model.answer(request);
        sent += 1;
        const { error = -1, data = Buffer.alloc(0) } = replies.get(sent) ?? {};
        if (error !== 0 || !sameBytes(data, expected, request, requests.slice(index + 1))) {
          expect.fail(`seed ${seed}, batch ${batch}: ${JSON.stringify({ ...request, data: undefined, error })}`);
        }
      }
    }
  });

  test.each([0, 1, 511, 4_095])(
    'reads as much as a pipe holds, and its neighbours, from offset %i',
    async (offsetBytes) => {
      const content = Buffer.alloc(SIZE_BYTES);
      for (let at = 0; at < SIZE_BYTES; at += 4) content.writeUInt32LE(at, at);
      writeFileSync(path, content);
      const { client } = start();
      for (const lengthBytes of [1_048_576, 1_048_577, 1_048_575, 1_044_480, 131_072]) {
        const { data } = await client.ask({ type: NBD_CMD_READ, offsetBytes, lengthBytes });
        expect(data.equals(content.subarray(offsetBytes, offsetBytes + lengthBytes))).toBe(true);
      }
    },
  );

  test('reads what another connection wrote', async () => {
    const [writer, reader] = [start().client, start().client];
    for (let value = 1; value <= 50; value += 1) {
      const data = Buffer.alloc(4_096, value);
      await writer.ask({ type: NBD_CMD_WRITE, offsetBytes: 8_192, data });
      const read = await reader.ask({ type: NBD_CMD_READ, offsetBytes: 8_192, lengthBytes: 4_096 });
      expect(read.data.equals(data)).toBe(true);
    }
  });
});

function anyRequest(random: (below: number) => number): AskedRequest {
  const flags = random(50) === 0 ? NBD_CMD_FLAG_FUA : 0;
  const range = anyRange(random);
  switch (random(10)) {
    case 0:
      return { type: NBD_CMD_WRITE_ZEROES, ...range, flags };
    case 1:
      return { type: NBD_CMD_TRIM, ...range };
    case 2:
      return random(5) === 0 ? { type: NBD_CMD_FLUSH } : { type: NBD_CMD_READ, ...range };
    case 3:
    case 4:
    case 5:
      return { type: NBD_CMD_READ, ...range };
    default:
      return { type: NBD_CMD_WRITE, ...range, data: Buffer.alloc(range.lengthBytes, 1 + random(255)), flags };
  }
}

describe('the end of a connection', () => {
  test('by DISC leaves what was written in the file, and no open socket', async () => {
    const { client, connection, socketFd, socket } = start();
    await client.ask({ type: NBD_CMD_WRITE, data: Buffer.alloc(512, 7) });
    client.send(client.encode({ type: NBD_CMD_DISC }));
    expect(await connection.ended).toEqual({ kind: 'left', how: 'disconnected' });
    expect(readFileSync(path).subarray(0, 512).equals(Buffer.alloc(512, 7))).toBe(true);
    expect(openedAs(socketFd)).not.toBe(socket);
  });

  test('by drain lets an idle client go', async () => {
    const { client, connection } = start();
    await client.ask({ type: NBD_CMD_READ, lengthBytes: 512 });
    connection.drain();
    expect(await connection.ended).toEqual({ kind: 'left', how: 'stopped' });
    await client.end();
  });

  test('by shutdown ends a worker that waits, at any time and more than once', async () => {
    const { connection } = start();
    connection.shutdown(); // the thread has hardly begun
    connection.shutdown();
    expect((await connection.ended).kind).toBe('left');
    connection.shutdown();
    connection.drain();
  });

  test('by shutdown ends a worker whose client does not read its answers', async () => {
    const { client, connection } = start();
    client.pause();
    for (let index = 0; index < 20; index += 1) {
      client.send(client.encode({ type: NBD_CMD_READ, lengthBytes: 1_048_576 }));
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
    connection.shutdown();
    expect(await connection.ended).toMatchObject({ kind: 'failed', error: { code: 'lost' } });
  });

  test('by a worker that breaks is seen by the client', async () => {
    const { client, connection, socketFd } = start(new Uint8Array(INPUT_BYTES + 1));
    const copy = duplicateFd(socketFd); // as the kernel or a child might hold one
    await client.end();
    closeSync(copy);
    expect(await connection.ended).toMatchObject({
      kind: 'failed',
      error: { code: 'died', message: expect.stringContaining('the worker broke: invariant broken') },
    });
  });
});

describe('a worker that has served a connection', () => {
  test('serves the next, whatever became of the one before', async () => {
    const worker = startWorker();
    const { threadId } = worker;
    for (let round = 1; round <= 12; round += 1) {
      const { client, connection, socketFd, socket } = start(undefined, worker);
      await client.ask({ type: NBD_CMD_WRITE, offsetBytes: 512 * round, data: Buffer.alloc(512, round) });
      const { data } = await client.ask({ type: NBD_CMD_READ, offsetBytes: 512 * (round - 1), lengthBytes: 1_024 });
      expect([data[0], data[512]]).toEqual([round - 1, round]);
      if (round % 3 === 0) client.close();
      else if (round % 3 === 1) client.send(Buffer.alloc(64, 0xee));
      else connection.drain();
      const end = await connection.ended;
      expect(end).toMatchObject(round % 3 === 1 ? { error: { code: 'violation' } } : { kind: 'left' });
      connection.drain(); // the socket is not its own any more
      expect(openedAs(socketFd)).not.toBe(socket);
      expect(worker.threadId).toBe(threadId);
      expect(worker.listenerCount('message') + worker.listenerCount('error') + worker.listenerCount('exit')).toBe(0);
    }
    await worker.terminate();
  });
});
