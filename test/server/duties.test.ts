import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type OpenedImage, type OpenOptions, openImage } from '#tsnbd/image/open-image.js';
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_EIO,
  NBD_ENOSPC,
  NBD_ENOTSUP,
  NBD_EOVERFLOW,
  NBD_EPERM,
  NBD_ESHUTDOWN,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_ERROR_OFFSET,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
} from '#tsnbd/protocol/constants.js';
import { ALLOCATION_DEPTH, BASE_ALLOCATION } from '#tsnbd/protocol/meta-context.js';
import type { ReplyStyle } from '#tsnbd/protocol/reply.js';
import { type Server, serve } from '#tsnbd/server/serve.js';
import type { Address } from '#tsnbd/transport/address.js';
import { connect } from '#tsnbd/transport/connect.js';
import { CALLS, type Loop, type LoopThreadData, startLoop } from './loop-harness.js';
import { ProtocolClient, type Wishes } from './protocol-client.js';
import type { AskedRequest } from './raw-client.js';
import { agreement } from './reply-audit.js';

const [KIB, MIB, GIB] = [2 ** 10, 2 ** 20, 2 ** 30];
const [NONE, DATA, HOLE] = [NBD_REPLY_TYPE_NONE, NBD_REPLY_TYPE_OFFSET_DATA, NBD_REPLY_TYPE_OFFSET_HOLE];
const [ERROR, ERROR_OFFSET] = [NBD_REPLY_TYPE_ERROR, NBD_REPLY_TYPE_ERROR_OFFSET];
const ALLOCATED = 0;
const EMPTY = 3; // a hole that reads as zeroes
const STYLES: readonly ReplyStyle[] = ['simple', 'structured', 'extended'];
const IN_CHUNKS: readonly ReplyStyle[] = ['structured', 'extended'];
const CONTEXTS = ['base:allocation'];
const LIMIT = () => AbortSignal.timeout(300_000);

let folder: string;
let path: string;
const undo: (() => unknown)[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-duties-'));
  path = join(folder, 'disk.raw');
});
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
  rmSync(folder, { recursive: true });
});

/** Serves a file of holes with data in it, 64 KiB at each of `dataAt`, to a client that went through the handshake. */
async function serveDisk(
  { sizeBytes = 4 * MIB, dataAt = [0, MIB] }: { readonly sizeBytes?: number; readonly dataAt?: readonly number[] },
  wishes: Wishes = {},
  options: Partial<OpenOptions> = {},
): Promise<ProtocolClient> {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, sizeBytes);
  for (const at of dataAt) writeSync(fd, Buffer.alloc(64 * KIB, 7), 0, 64 * KIB, at);
  closeSync(fd);
  const image = openImage(path, { format: 'raw', readOnly: false, ...options });
  undo.push(() => image.close());
  const server = await start(image);
  undo.push(() => server.stop());
  const client = await ProtocolClient.negotiate(await connect(server.address as Address, LIMIT()), wishes);
  undo.push(() => client.close());
  return client;
}

function start(image: OpenedImage): Promise<Server> {
  const exports = [{ name: '', description: undefined, image }];
  const address = { kind: 'unix', path: join(folder, 'socket') } as const;
  return serve({ address, exports, clientsMax: undefined, persistent: true, handshakeLimitMs: 0 }, () => {});
}

/** The loop over an image in memory, and a client that takes the handshake for done. */
function startTogether(replyStyle: ReplyStyle, options: Partial<LoopThreadData> = {}): Loop & { asks: ProtocolClient } {
  const { contexts = replyStyle === 'simple' ? [] : [BASE_ALLOCATION] } = options;
  const loop = startLoop({ replyStyle, contexts, ...options });
  const asks = new ProtocolClient(loop.client, agreement(replyStyle, options.sizeBytes ?? MIB, contexts));
  undo.push(async () => {
    asks.close();
    await loop.end;
  });
  return { ...loop, asks };
}

const wishesFor = (replyStyle: ReplyStyle): Wishes =>
  replyStyle === 'simple' ? { replyStyle } : { replyStyle, contexts: CONTEXTS };
const extentsOf = async (client: ProtocolClient, offsetBytes: number, lengthBytes: number, flags = 0) =>
  (await client.blockStatus(offsetBytes, lengthBytes, flags)).extents
    .get(BASE_ALLOCATION.id)
    ?.map((extent) => [extent.lengthBytes, extent.status]);

describe.each(STYLES)('with %s replies', (replyStyle) => {
  const status = replyStyle === 'simple' ? [] : [NBD_CMD_BLOCK_STATUS];

  test.each([
    [NBD_CMD_READ, NBD_EINVAL],
    [NBD_CMD_WRITE, NBD_ENOSPC],
    [NBD_CMD_WRITE_ZEROES, NBD_ENOSPC],
    [NBD_CMD_TRIM, NBD_EINVAL],
    [NBD_CMD_CACHE, NBD_EINVAL],
    [NBD_CMD_BLOCK_STATUS, NBD_EINVAL],
  ])('command %i that goes beyond the end gets error %i, and nothing is changed', async (type, error) => {
    const client = await serveDisk({ dataAt: [4 * MIB - 64 * KIB] }, wishesFor(replyStyle));
    const data = type === NBD_CMD_WRITE ? { data: Buffer.alloc(KIB) } : { lengthBytes: KIB };
    for (const offsetBytes of [4 * MIB - 512, 4 * MIB, 2 ** 63]) {
      expect(await client.ask({ type, offsetBytes, ...data })).toMatchObject({ error });
    }
    expect(await client.read(4 * MIB - 512, 512)).toMatchObject({ error: 0, data: Buffer.alloc(512, 7) });
  });

  test('each change of a read-only export is not permitted', async () => {
    const client = await serveDisk({}, wishesFor(replyStyle), { readOnly: true });
    expect(await client.write(0, Buffer.alloc(512))).toMatchObject({ error: NBD_EPERM });
    for (const type of [NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES]) {
      expect(await client.ask({ type, lengthBytes: 512 })).toMatchObject({ error: NBD_EPERM });
    }
    for (const type of [NBD_CMD_READ, NBD_CMD_CACHE, ...status]) {
      expect(await client.ask({ type, lengthBytes: 512 })).toMatchObject({ error: 0 });
    }
    expect(await client.ask({ type: NBD_CMD_FLUSH })).toMatchObject({ error: 0 });
  });

  test('FUA is accepted on every command', async () => {
    const client = await serveDisk({}, wishesFor(replyStyle));
    const flags = NBD_CMD_FLAG_FUA;
    for (const type of [NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES, ...status]) {
      expect(await client.ask({ type, lengthBytes: 512, flags }), String(type)).toMatchObject({ error: 0 });
    }
    expect(await client.ask({ type: NBD_CMD_FLUSH, flags })).toMatchObject({ error: 0 });
    expect(await client.write(0, Buffer.alloc(512), flags)).toMatchObject({ error: 0 });
  });

  test('length 0 disconnects nobody', async () => {
    const client = await serveDisk({}, wishesFor(replyStyle));
    const commands = [NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES];
    for (const type of commands) {
      expect(await client.ask({ type, offsetBytes: 4 * MIB, lengthBytes: 0 })).toMatchObject({ error: 0 });
    }
    expect(await client.blockStatus(0, 0)).toMatchObject({ error: NBD_EINVAL });
    expect(await client.read(0, 512)).toMatchObject({ data: Buffer.alloc(512, 7) });
  });

  test('what comes after a stop gets ESHUTDOWN, in the same style', async () => {
    const { asks, fail, count, stop } = startTogether(replyStyle);
    fail(CALLS.WRITE, -1);
    const written = asks.write(0, Buffer.alloc(512, 7));
    await expect.poll(() => count(CALLS.WRITE), { timeout: 300_000 }).toBe(1);
    const late: AskedRequest[] = [
      { type: NBD_CMD_READ, lengthBytes: 512 },
      { type: NBD_CMD_WRITE, data: Buffer.alloc(512) },
      { type: NBD_CMD_TRIM, lengthBytes: 512 },
      ...status.map((type) => ({ type, lengthBytes: 512 })),
    ];
    const refused = asks.askTogether(late);
    await new Promise((resolve) => setTimeout(resolve, 50));
    stop();
    fail(CALLS.WRITE, 0);
    expect(await written).toMatchObject({ error: 0 });
    expect((await Promise.all(refused)).map(({ error }) => error)).toEqual(late.map(() => NBD_ESHUTDOWN));
    expect(await asks.disconnect()).toBeUndefined();
  });

  test('a fast zeroing that would be slow is ENOTSUP, at once, and changes nothing', async () => {
    const { asks, memory, count } = startTogether(replyStyle, { slowZero: true });
    memory.fill(7);
    const fast = { type: NBD_CMD_WRITE_ZEROES, lengthBytes: 4_096, flags: NBD_CMD_FLAG_FAST_ZERO };
    expect(await asks.ask(fast)).toMatchObject({ error: NBD_ENOTSUP });
    expect(await asks.ask({ ...fast, flags: fast.flags | NBD_CMD_FLAG_NO_HOLE })).toMatchObject({ error: NBD_ENOTSUP });
    expect(await asks.read(0, 4_096)).toMatchObject({ data: Buffer.alloc(4_096, 7) });
    expect(count(CALLS.ZERO)).toBe(0);
    expect(await asks.ask({ ...fast, flags: 0 })).toMatchObject({ error: 0 });
    expect(await asks.read(0, 4_096)).toMatchObject({ data: Buffer.alloc(4_096) });
  });

  test('a fast zeroing of a file gives its storage back, or with NO_HOLE keeps it', async () => {
    const client = await serveDisk({}, wishesFor(replyStyle));
    const zero = (offsetBytes: number, flags: number) =>
      client.ask({
        type: NBD_CMD_WRITE_ZEROES,
        offsetBytes,
        lengthBytes: 64 * KIB,
        flags: NBD_CMD_FLAG_FAST_ZERO | flags,
      });
    const before = statSync(path).blocks;
    const { error } = await zero(0, NBD_CMD_FLAG_NO_HOLE);
    expect([0, NBD_ENOTSUP]).toContain(error); // as the file system can
    expect(statSync(path).blocks).toBe(before);
    expect(await client.read(0, 512)).toMatchObject({ data: Buffer.alloc(512, error === 0 ? 0 : 7) });
    expect(await zero(MIB, 0)).toMatchObject({ error: 0 });
    expect(statSync(path).blocks).toBeLessThan(before);
    expect(await client.read(MIB, 512)).toMatchObject({ data: Buffer.alloc(512) });
  });

  test('CACHE is a hint for any range, and changes nothing', async () => {
    const client = await serveDisk({}, wishesFor(replyStyle));
    expect(await client.ask({ type: NBD_CMD_CACHE, lengthBytes: 4 * MIB })).toMatchObject({ error: 0 });
    expect(await client.ask({ type: NBD_CMD_CACHE, offsetBytes: 513, lengthBytes: 1 })).toMatchObject({ error: 0 });
    expect(await client.read(0, 512)).toMatchObject({ data: Buffer.alloc(512, 7) });
  });

  test("CACHE is the image's to do, and fails as that does", async () => {
    const { asks, fail, count } = startTogether(replyStyle);
    const hint = { type: NBD_CMD_CACHE, offsetBytes: 513, lengthBytes: 4_096 };
    expect(await asks.ask(hint)).toMatchObject({ error: 0 });
    expect(count(CALLS.CACHE)).toBe(1);
    fail(CALLS.CACHE, constants.errno.EIO);
    expect(await asks.ask(hint)).toMatchObject({ error: NBD_EIO });
    expect(await asks.read(0, 512)).toMatchObject({ error: 0 });
  });
});

describe.each(IN_CHUNKS)('a READ with %s replies', (replyStyle) => {
  test('is answered in chunks, whatever comes of it', async () => {
    const client = await serveDisk({}, { replyStyle });
    expect(await client.read(0, 512)).toMatchObject({ error: 0, chunkTypes: [DATA] });
    expect(await client.read(0, 0)).toMatchObject({ error: 0, chunkTypes: [NONE] });
    expect(await client.read(4 * MIB, 1)).toMatchObject({ error: NBD_EINVAL, chunkTypes: [ERROR] });
    expect(await client.read(0, 512, 1 << 9)).toMatchObject({ error: NBD_EINVAL, chunkTypes: [ERROR] });
    expect(await client.read(0, 33_554_433)).toMatchObject({ error: NBD_EINVAL, chunkTypes: [ERROR] });
  });

  test('tells of holes by their length where it is large', async () => {
    const client = await serveDisk({ dataAt: [64 * KIB, 256 * KIB] }, { replyStyle });
    const whole = await client.read(0, 512 * KIB);
    expect(whole.chunkTypes).toEqual([HOLE, DATA, HOLE, DATA, HOLE]);
    const [empty, full] = [Buffer.alloc(64 * KIB), Buffer.alloc(64 * KIB, 7)];
    expect(whole.data.equals(Buffer.concat([empty, full, empty, empty, full, empty, empty, empty]))).toBe(true);
    const hole = await client.read(MIB, MIB);
    expect(hole.chunkTypes).toEqual([HOLE]);
    expect(hole.data.equals(Buffer.alloc(MIB))).toBe(true);
    expect((await client.read(64 * KIB, 64 * KIB)).chunkTypes).toEqual([DATA]);
  });

  test.each([64 * KIB, 2 * MIB, 32 * MIB])('of %i bytes with DF is one chunk, over data and holes', async (length) => {
    const client = await serveDisk({ sizeBytes: 33 * MIB, dataAt: [MIB, 3 * MIB] }, { replyStyle });
    const { error, chunkTypes, data } = await client.read(MIB, length, NBD_CMD_FLAG_DF);
    expect({ error, chunkTypes }).toEqual({ error: 0, chunkTypes: [DATA] });
    const expected = Buffer.alloc(length).fill(7, 0, 64 * KIB);
    if (length > 2 * MIB) expected.fill(7, 2 * MIB, 2 * MIB + 64 * KIB);
    expect(data.equals(expected)).toBe(true);
  });

  test('of more with DF overflows', async () => {
    const client = await serveDisk({ sizeBytes: 64 * MIB }, { replyStyle });
    expect(await client.read(0, 33_554_433, NBD_CMD_FLAG_DF)).toMatchObject({ error: NBD_EOVERFLOW });
  });

  test('that fails in the middle tells where, behind what it could read', async () => {
    const { asks, memory } = startTogether(replyStyle, { sparse: true, badBlockBytes: 192 * KIB });
    for (const at of [0, 128, 256]) memory.fill(7, at * KIB, (at + 96) * KIB);
    const { error, chunkTypes, errorOffsets, data } = await asks.read(0, 512 * KIB);
    expect({ error, chunkTypes, errorOffsets }).toEqual({
      error: NBD_EIO,
      chunkTypes: [DATA, HOLE, ERROR_OFFSET],
      errorOffsets: [128 * KIB],
    });
    expect(data.subarray(0, 128 * KIB).equals(Buffer.from(memory.slice(0, 128 * KIB)))).toBe(true);
    const whole = await asks.read(0, 512 * KIB, NBD_CMD_FLAG_DF);
    expect(whole).toMatchObject({ error: NBD_EIO, chunkTypes: [ERROR], errorOffsets: [] });
    expect(await asks.read(256 * KIB, 4 * KIB)).toMatchObject({ error: 0, data: Buffer.alloc(4 * KIB, 7) });
  });
});

describe.each(IN_CHUNKS)('BLOCK_STATUS with %s replies', (replyStyle) => {
  const wishes = { replyStyle, contexts: CONTEXTS };

  test('that fails tells so in one chunk, in place of all', async () => {
    const { asks, fail } = startTogether(replyStyle, { contexts: [BASE_ALLOCATION, ALLOCATION_DEPTH] });
    expect(await asks.blockStatus(0, 512 * KIB)).toMatchObject({ error: 0 });
    fail(CALLS.STATUS, constants.errno.EIO);
    const { error, extents, chunkTypes } = await asks.blockStatus(0, 512 * KIB);
    expect({ error, extents: extents.size, chunkTypes }).toEqual({ error: NBD_EIO, extents: 0, chunkTypes: [ERROR] });
    fail(CALLS.STATUS, 0);
    expect(await asks.blockStatus(0, 512 * KIB)).toMatchObject({ error: 0 });
  });

  test('tells data from holes, and follows every change', async () => {
    const client = await serveDisk({}, wishes);
    const all = () => extentsOf(client, 0, 4 * MIB);
    const [data, gap, rest] = [64 * KIB, MIB - 64 * KIB, 3 * MIB - 64 * KIB];
    expect(await all()).toEqual([
      [data, ALLOCATED],
      [gap, EMPTY],
      [data, ALLOCATED],
      [rest, EMPTY],
    ]);
    await client.ask({ type: NBD_CMD_TRIM, lengthBytes: data });
    expect(await all()).toEqual([
      [MIB, EMPTY],
      [data, ALLOCATED],
      [rest, EMPTY],
    ]);
    await client.ask({ type: NBD_CMD_WRITE_ZEROES, offsetBytes: MIB, lengthBytes: data });
    expect(await all()).toEqual([[4 * MIB, EMPTY]]);
    await client.write(2 * MIB, Buffer.alloc(data, 1));
    expect(await all()).toEqual([
      [2 * MIB, EMPTY],
      [data, ALLOCATED],
      [2 * MIB - data, EMPTY],
    ]);
    expect(await extentsOf(client, 2 * MIB + 512, 512)).toEqual([[512, ALLOCATED]]);
  });

  test('with REQ_ONE tells of one extent, within the request', async () => {
    const client = await serveDisk({}, wishes);
    const one = (offsetBytes: number, lengthBytes: number) =>
      extentsOf(client, offsetBytes, lengthBytes, NBD_CMD_FLAG_REQ_ONE);
    expect(await one(0, 4 * MIB)).toEqual([[64 * KIB, ALLOCATED]]);
    expect(await one(64 * KIB, 4 * MIB - 64 * KIB)).toEqual([[MIB - 64 * KIB, EMPTY]]);
    expect(await one(512, 1_024)).toEqual([[1_024, ALLOCATED]]);
    expect(await one(4 * MIB - 1, 1)).toEqual([[1, EMPTY]]);
  });

  test('of more extents than a reply has tells of the first, and of the rest when it is asked for', async () => {
    const sizeBytes = 16 * MIB;
    const { asks, memory } = startTogether(replyStyle, { sizeBytes, sparse: true });
    for (let at = 0; at < sizeBytes; at += 8 * KIB) memory[at] = 1;
    let extents = 0;
    for (let at = 0; at < sizeBytes; ) {
      const got = (await extentsOf(asks, at, sizeBytes - at)) ?? [];
      for (const [index, extent] of got.entries()) {
        expect(extent).toEqual([4 * KIB, index % 2 === 0 ? ALLOCATED : EMPTY]);
      }
      expect(got.length % 2).toBe(0);
      expect(got.length).toBeGreaterThan(0);
      at += got.length * 4 * KIB;
      extents += got.length;
    }
    expect(extents).toBe(sizeBytes / (4 * KIB));
  });

  test('without a context is invalid', async () => {
    const client = await serveDisk({}, { replyStyle });
    expect(await client.blockStatus(0, 512)).toMatchObject({ error: NBD_EINVAL });
  });
});

describe('lengths of more than 32 bits', () => {
  const sizeBytes = 6 * GIB;
  const place = 5 * GIB;

  test('are told by BLOCK_STATUS in one extent', async () => {
    const client = await serveDisk({ sizeBytes, dataAt: [place] }, wishesFor('extended'));
    expect(await extentsOf(client, 0, sizeBytes)).toEqual([
      [place, EMPTY],
      [64 * KIB, ALLOCATED],
      [GIB - 64 * KIB, EMPTY],
    ]);
  });

  test.each([NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES])('are done by command %i', async (type) => {
    const client = await serveDisk({ sizeBytes, dataAt: [0, place, sizeBytes - 64 * KIB] }, wishesFor('extended'));
    const beyond = type === NBD_CMD_TRIM ? NBD_EINVAL : NBD_ENOSPC;
    expect(await client.ask({ type, offsetBytes: 1, lengthBytes: sizeBytes })).toMatchObject({ error: beyond });
    expect(await client.read(place, 512)).toMatchObject({ data: Buffer.alloc(512, 7) });
    expect(await client.ask({ type, lengthBytes: place + 64 * KIB })).toMatchObject({ error: 0 });
    expect(await client.read(0, 512)).toMatchObject({ data: Buffer.alloc(512) });
    expect(await client.read(place, 512)).toMatchObject({ data: Buffer.alloc(512) });
    expect(await client.read(sizeBytes - 512, 512)).toMatchObject({ data: Buffer.alloc(512, 7) });
  });

  test('are taken by CACHE', async () => {
    const client = await serveDisk({ sizeBytes, dataAt: [place] }, wishesFor('extended'));
    expect(await client.ask({ type: NBD_CMD_CACHE, lengthBytes: sizeBytes })).toMatchObject({ error: 0 });
  });

  test('are beyond what data a READ or a WRITE may have', async () => {
    const client = await serveDisk({ sizeBytes }, wishesFor('extended'));
    expect(await client.read(0, 2 ** 32 + 512)).toMatchObject({ error: NBD_EINVAL });
    expect(await client.read(0, 2 ** 32 + 512, NBD_CMD_FLAG_DF)).toMatchObject({ error: NBD_EOVERFLOW });
    expect(await client.read(0, 512)).toMatchObject({ error: 0 });
    expect(await client.ask({ type: NBD_CMD_WRITE, lengthBytes: 2 ** 32 + 512 })).toMatchObject({ error: NBD_EINVAL });
    expect(await client.disconnect()).toBeUndefined();
  });
});
