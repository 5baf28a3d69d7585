import { closeSync, mkdtempSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type OpenedImage, openImage } from '#tsnbd/image/open-image.js';
import { HOLDS_PIPED } from '#tsnbd/image/qcow2/worker-turns.js';
import { shutdownFd, socketPair } from '#tsnbd/kernel/fd-calls.js';
import {
  NBD_CMD_DISC,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_REQUEST_BYTES,
  NBD_SIMPLE_REPLY_BYTES,
} from '#tsnbd/protocol/constants.js';
import { encodeRequest } from '#tsnbd/protocol/request.js';
import { imageFlags, rulesOf } from '#tsnbd/server/exports.js';
import { type ServedConnection, startConnection } from '#tsnbd/server/workers.js';
import { type Cluster, qcow2Bytes } from '../image/qcow2/qcow2-bytes.js';
import { readSoon } from '../read-soon.js';
import { type AskedRequest, RawClient } from './raw-client.js';

const CLUSTER_BYTES = 65_536;
const READ_BYTES = 8 * CLUSTER_BYTES;

let folder: string;
let path: string;
let image: OpenedImage;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-lent-'));
  path = join(folder, 'disk.qcow2');
  const clusters = Array.from({ length: 8 }, (_, cluster) => {
    return [cluster, { kind: 'data', bytes: new Uint8Array(CLUSTER_BYTES).fill(5) }] as const;
  });
  writeFileSync(path, qcow2Bytes({ sizeBytes: 4 * READ_BYTES, clusters: new Map<number, Cluster>(clusters) }).bytes);
  image = openImage(path, { readOnly: false });
});
afterEach(() => {
  image.close();
  rmSync(folder, { recursive: true });
});

function startFds(mayHalt = false): { clientFd: number; connection: ServedConnection } {
  const [clientFd, socketFd] = socketPair();
  const rules = rulesOf(image, { flags: imageFlags(image, true), replyStyle: 'simple', statusContexts: 0 });
  const received = new Uint8Array(0);
  return {
    clientFd,
    connection: startConnection({ socketFd, image: image.handle, rules, contexts: [], received, mayHalt }),
  };
}

function start(): { client: RawClient; connection: ServedConnection } {
  const { clientFd, connection } = startFds();
  return { client: RawClient.onFd(clientFd), connection };
}

/** What workers hold of the image: HOLDS_… bits of each row that is somebody's. */
function held(): readonly number[] {
  const { handle } = image;
  const turns = handle.format === 'qcow2' ? handle.memory.write?.turns : undefined;
  return [...(turns?.claims ?? [])].flatMap((claim, row) => (claim === 0 ? [] : [turns?.holds[row] ?? 0]));
}

async function give(client: RawClient, request: AskedRequest): Promise<void> {
  expect((await client.ask(request)).error).toBe(0);
}

/** A client that has asked for clusters, and has not read the reply, in which they lie. */
async function startLent(mayHalt = false): Promise<{ clientFd: number; connection: ServedConnection }> {
  const started = startFds(mayHalt);
  writeSync(started.clientFd, readRequest());
  await expect.poll(() => held().includes(HOLDS_PIPED)).toBe(true);
  return started;
}

/** A READ of READ_BYTES at the beginning. */
function readRequest(): Uint8Array {
  const bytes = new Uint8Array(NBD_REQUEST_BYTES);
  const read = { flags: 0, type: NBD_CMD_READ, cookieHigh: 0, cookieLow: 1, offsetBytes: 0, lengthBytes: READ_BYTES };
  encodeRequest(new DataView(bytes.buffer), 0, read);
  return bytes;
}

async function trimAndWriteElsewhere(client: RawClient): Promise<void> {
  await give(client, { type: NBD_CMD_TRIM, lengthBytes: READ_BYTES });
  for (let flush = 0; flush < 3; flush += 1) await give(client, { type: NBD_CMD_FLUSH });
  await give(client, {
    type: NBD_CMD_WRITE,
    offsetBytes: READ_BYTES,
    data: new Uint8Array(READ_BYTES).fill(6),
  });
}

test('a client that reads its replies after it has said goodbye gets what was there when it asked', async () => {
  const [slow, other] = [start(), start()];
  try {
    for (const { client } of [slow, other]) await client.ask({ type: NBD_CMD_READ, lengthBytes: 1 });
    slow.client.pause();
    slow.client.send(slow.client.encode({ type: NBD_CMD_READ, lengthBytes: READ_BYTES }));
    slow.client.send(slow.client.encode({ type: NBD_CMD_DISC }));
    await expect.poll(() => held().includes(HOLDS_PIPED)).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, 100)); // until it has heard the goodbye, too
    await trimAndWriteElsewhere(other.client);
    slow.client.resume();
    const { error, data } = await slow.client.reply();
    expect(error).toBe(0);
    expect(data.every((byte) => byte === 5)).toBe(true);
    expect(await slow.connection.ended).toEqual({ kind: 'left', how: 'disconnected' });
  } finally {
    for (const { client, connection } of [slow, other]) {
      client.close();
      await connection.ended;
    }
  }
  expect(held()).toEqual([]);
});

test('so does a client that has shut its socket down', async () => {
  const slow = await startLent();
  const other = start();
  // What is not in the socket by then never gets there: the worker says that it lends a moment before it sends.
  await new Promise((resolve) => setTimeout(resolve, 300));
  shutdownFd(slow.clientFd);
  await new Promise((resolve) => setTimeout(resolve, 100));
  await trimAndWriteElsewhere(other.client);
  const reply = Buffer.alloc(NBD_SIMPLE_REPLY_BYTES + READ_BYTES);
  for (let length = 0; length < reply.length; ) {
    const received = readSoon(slow.clientFd, reply, length);
    expect(received, `after ${length} bytes of the reply`).toBeGreaterThan(0);
    length += received;
  }
  expect(reply.subarray(NBD_SIMPLE_REPLY_BYTES).every((byte) => byte === 5)).toBe(true);
  await slow.connection.ended;
  closeSync(slow.clientFd);
  other.client.close();
  await other.connection.ended;
  expect(held()).toEqual([]);
});

test.each(['shuts its socket down and closes it', 'closes its socket'])(
  'a client that %s without having read its replies leaves nothing held, and what is dropped is freed',
  async (how) => {
    for (let round = 0; round < 20; round += 1) {
      const { clientFd, connection } = await startLent();
      if (how !== 'closes its socket') {
        shutdownFd(clientFd);
        await new Promise((resolve) => setTimeout(resolve, 30));
      }
      closeSync(clientFd);
      await connection.ended;
    }
    expect(held()).toEqual([]);
    const { client, connection } = start();
    const storedBefore = statSync(path).blocks;
    await give(client, { type: NBD_CMD_TRIM, lengthBytes: READ_BYTES });
    for (let flush = 0; flush < 3; flush += 1) await give(client, { type: NBD_CMD_FLUSH });
    expect(statSync(path).blocks).toBeLessThan(storedBefore);
    client.close();
    await connection.ended;
  },
);

test('a kernel that has shut its end down is not waited for: it reads nothing any more', async () => {
  const { clientFd, connection } = await startLent(true);
  shutdownFd(clientFd);
  await connection.ended;
  closeSync(clientFd);
});

test('a server that is about to end does not wait for a client that reads nothing', async () => {
  const { clientFd, connection } = await startLent();
  connection.shutdown();
  await connection.ended;
  closeSync(clientFd);
});
