import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openImage } from '#tsnbd/image/open-image.js';
import { socketPair } from '#tsnbd/kernel/fd-calls.js';
import { NBD_CMD_DISC, NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE } from '#tsnbd/protocol/constants.js';
import { imageFlags, rulesOf } from '#tsnbd/server/exports.js';
import { startConnection } from '#tsnbd/server/workers.js';
import { type Cluster, qcow2Bytes } from '../image/qcow2/qcow2-bytes.js';
import { RawClient } from './raw-client.js';

const CLUSTER_BYTES = 65_536;
const READ_BYTES = 8 * CLUSTER_BYTES;

test('a client that reads its replies after it has said goodbye gets what was there when it asked', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tsnbd-lent-'));
  const path = join(folder, 'disk.qcow2');
  const clusters = Array.from({ length: 8 }, (_, cluster) => {
    return [cluster, { kind: 'data', bytes: new Uint8Array(CLUSTER_BYTES).fill(5) }] as const;
  });
  writeFileSync(path, qcow2Bytes({ sizeBytes: 4 * READ_BYTES, clusters: new Map<number, Cluster>(clusters) }).bytes);
  const image = openImage(path, { readOnly: false });
  const start = () => {
    const [clientFd, socketFd] = socketPair();
    const rules = rulesOf(image, { flags: imageFlags(image, true), replyStyle: 'simple', statusContexts: 0 });
    const received = new Uint8Array(0);
    const connection = startConnection({ socketFd, image: image.handle, rules, contexts: [], received });
    return { client: RawClient.onFd(clientFd), connection };
  };
  const [slow, other] = [start(), start()];
  try {
    for (const { client } of [slow, other]) await client.ask({ type: NBD_CMD_READ, lengthBytes: 1 });
    slow.client.pause();
    slow.client.send(slow.client.encode({ type: NBD_CMD_READ, lengthBytes: READ_BYTES }));
    slow.client.send(slow.client.encode({ type: NBD_CMD_DISC }));
    await new Promise((resolve) => setTimeout(resolve, 100));
    const ask = async (request: Parameters<RawClient['ask']>[0]) => {
      expect((await other.client.ask(request)).error).toBe(0);
    };
    await ask({ type: NBD_CMD_TRIM, lengthBytes: READ_BYTES });
    for (let flush = 0; flush < 3; flush += 1) await ask({ type: NBD_CMD_FLUSH });
    await ask({ type: NBD_CMD_WRITE, offsetBytes: READ_BYTES, data: new Uint8Array(READ_BYTES).fill(6) });
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
  // Nothing is held any more.
  const { handle } = image;
  expect(handle.format === 'qcow2' && handle.memory.write?.turns.claims.every((claim) => claim === 0)).toBe(true);
  image.close();
  rmSync(folder, { recursive: true });
});
