import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type OpenedImage, openImage } from '#tsnbd/image/open-image.js';
import { SYNC_LOCK } from '#tsnbd/image/shared-layout.js';
import { SharedLock } from '#tsnbd/image/shared-lock.js';
import {
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
  NBD_STATE_HOLE,
  NBD_STATE_ZERO,
} from '#tsnbd/protocol/constants.js';
import { ALLOCATION_DEPTH, BASE_ALLOCATION } from '#tsnbd/protocol/meta-context.js';
import { type Server, serve } from '#tsnbd/server/serve.js';
import type { Address } from '#tsnbd/transport/address.js';
import { connect } from '#tsnbd/transport/connect.js';
import { BACKING_FORMAT, type Cluster, qcow2Bytes } from '../image/qcow2/qcow2-bytes.js';
import { ProtocolClient, type Wishes } from './protocol-client.js';

const CLUSTER_BYTES = 65_536;
const IS_HELD_MS = 200;
let folder: string;
let image: OpenedImage;
let server: Server;
let clients: ProtocolClient[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-several-'));
  clients = [];
});
afterEach(async () => {
  for (const client of clients) client.close();
  await server.stop();
  image.close();
  rmSync(folder, { recursive: true });
});

async function start(path: string, format: 'raw' | 'qcow2'): Promise<void> {
  image = openImage(path, { format, readOnly: false });
  const exports = [{ name: '', description: undefined, image }];
  const address = { kind: 'unix', path: join(folder, 'socket') } as const;
  server = await serve({ address, exports, clientsMax: undefined, persistent: true, handshakeLimitMs: 0 }, () => {});
}

async function attach(wishes: Wishes = {}): Promise<ProtocolClient> {
  const socket = await connect(server.address as Address, AbortSignal.timeout(10_000));
  const client = await ProtocolClient.negotiate(socket, wishes);
  clients.push(client);
  return client;
}

/** Data of its own, data of its backing file, and a hole behind that. */
function makeLayers(): string {
  const path = join(folder, 'disk.qcow2');
  writeFileSync(join(folder, 'base.raw'), Buffer.alloc(3 * CLUSTER_BYTES, 1));
  const data = { kind: 'data', bytes: new Uint8Array(CLUSTER_BYTES).fill(2) } as const;
  const layers = qcow2Bytes({
    sizeBytes: 4 * CLUSTER_BYTES,
    backing: 'base.raw',
    extensions: [[BACKING_FORMAT, Buffer.from('raw')]],
    clusters: new Map<number, Cluster>([[1, data]]),
  });
  writeFileSync(path, layers.bytes);
  return path;
}

test.each([
  ['structured', NBD_REPLY_TYPE_BLOCK_STATUS],
  ['extended', NBD_REPLY_TYPE_BLOCK_STATUS_EXT],
] as const)(
  'BLOCK_STATUS of two contexts is told in a chunk each, of which the last is the end (%s)',
  async (replyStyle, type) => {
    await start(makeLayers(), 'qcow2');
    const client = await attach({ replyStyle, contexts: [BASE_ALLOCATION.name, ALLOCATION_DEPTH.name] });
    const told = async (flags: number) => {
      // The client takes no chunk behind the last, and waits for the last.
      const { error, chunkTypes, chunkFlags, extents } = await client.blockStatus(0, 4 * CLUSTER_BYTES, flags);
      expect({ error, chunkTypes, chunkFlags }).toEqual({
        error: 0,
        chunkTypes: [type, type],
        chunkFlags: NBD_REPLY_FLAG_DONE,
      });
      const rows = (id: number) =>
        extents.get(id)?.map(({ lengthBytes, status }) => [lengthBytes / CLUSTER_BYTES, status]);
      return { allocation: rows(BASE_ALLOCATION.id), depth: rows(ALLOCATION_DEPTH.id), contexts: extents.size };
    };
    const hole = NBD_STATE_HOLE | NBD_STATE_ZERO;
    expect(await told(0)).toEqual({
      allocation: [
        [3, 0],
        [1, hole],
      ],
      depth: [
        [1, 2],
        [1, 1],
        [1, 2],
        [1, 0],
      ],
      contexts: 2,
    });
    expect(await told(NBD_CMD_FLAG_REQ_ONE)).toEqual({ allocation: [[3, 0]], depth: [[1, 2]], contexts: 2 });
    // The connection goes on where it should.
    expect((await client.read(CLUSTER_BYTES, 512)).data.equals(Buffer.alloc(512, 2))).toBe(true);
  },
);

test('a connection whose FLUSH waits for a disk holds up no other: it reads, writes and leaves', async () => {
  const path = join(folder, 'disk.raw');
  writeFileSync(path, Buffer.alloc(4 * CLUSTER_BYTES, 1));
  await start(path, 'raw');
  const [stuck, other, leaving] = [await attach(), await attach(), await attach()];
  for (const client of [stuck, other, leaving]) expect((await client.read(0, 512)).error).toBe(0);
  await stuck.write(0, Buffer.alloc(512, 3));
  // As if a sync of another worker did not come back.
  const lock = new SharedLock(image.handle.shared, SYNC_LOCK);
  lock.take();
  try {
    const flushed = stuck.ask({ type: NBD_CMD_FLUSH });
    const held = new Promise((resolve) => setTimeout(() => resolve('held'), IS_HELD_MS));
    expect(await Promise.race([flushed, held])).toBe('held');
    const data = Buffer.alloc(CLUSTER_BYTES, 4);
    for (let round = 0; round < 50; round += 1) {
      expect((await other.write(CLUSTER_BYTES, data)).error).toBe(0);
      expect((await other.read(CLUSTER_BYTES, CLUSTER_BYTES)).data.equals(data)).toBe(true);
      expect((await leaving.read(0, 512)).data.equals(Buffer.alloc(512, 3))).toBe(true);
    }
    expect(await leaving.disconnect()).toBeUndefined();
    expect((await (await attach()).read(CLUSTER_BYTES, 512)).data.equals(data.subarray(0, 512))).toBe(true);
    expect(await Promise.race([flushed, Promise.resolve('held')])).toBe('held');
    lock.leave();
    expect((await flushed).error).toBe(0);
    expect((await other.ask({ type: NBD_CMD_FLUSH })).error).toBe(0);
  } finally {
    if (Atomics.load(image.handle.shared, SYNC_LOCK) !== 0) lock.leave();
  }
});
