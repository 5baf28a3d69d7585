import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openImage } from '#tsnbd/image/open-image.js';
import { SYNC_LOCK } from '#tsnbd/image/shared-layout.js';
import { SharedLock } from '#tsnbd/image/shared-lock.js';
import type { ClientGoal } from '#tsnbd/protocol/client-goal.js';
import { ClientHandshake } from '#tsnbd/protocol/client-handshake.js';
import {
  NBD_CMD_DISC,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_EPERM,
  NBD_ESHUTDOWN,
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_OPT_EXPORT_NAME,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_SHUTDOWN,
  NBD_REP_INFO,
  NBD_SIMPLE_REPLY_BYTES,
} from '#tsnbd/protocol/constants.js';
import { encodeOption } from '#tsnbd/protocol/option.js';
import type { ServeOptions } from '#tsnbd/server/serve.js';
import type { Address } from '#tsnbd/transport/address.js';
import { connect } from '#tsnbd/transport/connect.js';
import { runHandshake } from '#tsnbd/transport/handshake-socket.js';
import { listen } from '#tsnbd/transport/listen.js';
import type { AskedRequest } from './raw-client.js';
import { CLIENT_FLAGS, GO, GO_REPLIES_BYTES, readsWell, ServedImage, SIZE_BYTES, TCP } from './served-image.js';

let served: ServedImage;

beforeEach(() => {
  served = new ServedImage();
});
afterEach(() => served.close());

const start = (options: Partial<ServeOptions> = {}) => served.start(options);
const stranger = () => served.stranger();
const attach = (exportName = '') => served.attach(exportName);
const failures = () => served.failures();

const negotiate = async (goal: ClientGoal) =>
  runHandshake(await served.open(), new ClientHandshake(goal), AbortSignal.timeout(5_000));

describe('a server', () => {
  test.each(['tcp', 'unix'] as const)('serves its default export over %s', async (kind) => {
    await start(kind === 'tcp' ? {} : { address: { kind, path: join(served.folder, 'socket') } });
    expect(await readsWell(await attach())).toBe(true);
    expect(served.events).toMatchObject([{ kind: 'connected', client: 1, exportName: '' }]);
  });

  test('describes and lists its export', async () => {
    await start();
    expect(await negotiate({ kind: 'list' })).toEqual({ kind: 'list', exports: [{ name: '', description: '' }] });
    expect(await negotiate({ kind: 'info', exportName: '' })).toMatchObject({
      export: { sizeBytes: SIZE_BYTES, blockSizes: { minimum: 1, preferred: 4_096, maximumPayload: 33_554_432 } },
    });
    expect(await negotiate({ kind: 'go', exportName: 'other' })).toMatchObject({ error: { code: 'unknown-export' } });
  });

  test('serves each export from its own image, and lists them with what they are', async () => {
    const other = join(served.folder, 'other.raw');
    writeFileSync(other, Buffer.alloc(8_192, 2));
    const second = openImage(other, { format: 'raw', readOnly: true });
    await start({
      exports: [
        { name: 'one', description: 'the first', image: served.image },
        { name: 'zwei/ü', description: undefined, image: second },
      ],
    });
    expect(await negotiate({ kind: 'list' })).toEqual({
      kind: 'list',
      exports: [
        { name: 'one', description: 'the first' },
        { name: 'zwei/ü', description: '' },
      ],
    });
    expect(await negotiate({ kind: 'info', exportName: 'zwei/ü' })).toMatchObject({ export: { sizeBytes: 8_192 } });
    expect(await negotiate({ kind: 'go', exportName: '' })).toMatchObject({ error: { code: 'unknown-export' } });

    const [one, two] = [await attach('one'), await attach('zwei/ü')];
    expect(await readsWell(one)).toBe(true);
    expect((await two.ask({ type: NBD_CMD_READ, lengthBytes: 512 })).data.equals(Buffer.alloc(512, 2))).toBe(true);
    const write = { type: NBD_CMD_WRITE, data: Buffer.alloc(512, 3) };
    expect([(await one.ask(write)).error, (await two.ask(write)).error]).toEqual([0, NBD_EPERM]);
    expect([readFileSync(served.path)[0], readFileSync(other)[0]]).toEqual([3, 2]);
    const names = served.events.flatMap((event) => (event.kind === 'connected' ? [event.exportName] : []));
    expect(names).toEqual(['one', 'zwei/ü']);
    await served.server?.stop();
    second.close();
  });

  test('answers requests that came right behind the handshake', async () => {
    await start();
    const client = await stranger();
    const read = client.encode({ type: NBD_CMD_READ, offsetBytes: 512, lengthBytes: 512 });
    client.send(Buffer.concat([CLIENT_FLAGS, GO, read, read]));
    await client.read(GO_REPLIES_BYTES);
    expect((await client.reply()).data.equals(Buffer.alloc(512, 1))).toBe(true);
    expect((await client.reply()).error).toBe(0);
  });

  test('refuses a port that is in use', async () => {
    const other = await listen(TCP, { onConnection: () => {}, onDropped: () => {} });
    await expect(start({ address: other.address })).rejects.toMatchObject({ code: 'address' });
    other.close();
  });
});

describe('the number of clients', () => {
  const FULL = 'a client is served already, no more are allowed';
  const refused = {
    kind: 'failed',
    error: { code: 'policy', message: expect.stringMatching(new RegExp(`it says: ${FULL}$`)) },
  };

  test('is bounded: one too many is told so, may look around, and gets a place once there is one', async () => {
    await start({ clientsMax: 1 });
    const client = await attach();
    expect(await negotiate({ kind: 'go', exportName: '' })).toMatchObject(refused);
    expect(await negotiate({ kind: 'info', exportName: '' })).toMatchObject(refused);
    expect(await negotiate({ kind: 'list' })).toMatchObject({ kind: 'list', exports: [{ name: '' }] });
    for (const socket of served.sockets.slice(1)) socket.destroy();
    await expect.poll(failures).toEqual([FULL, FULL, 'the client took its leave']);
    expect(await readsWell(client)).toBe(true);

    client.send(client.encode({ type: NBD_CMD_DISC }));
    expect(await readsWell(await attach())).toBe(true);
  });

  test('is bounded for clients that ask by EXPORT_NAME, which has no answer: they are closed', async () => {
    await start({ clientsMax: 1 });
    const client = await attach();
    const beyond = await stranger();
    beyond.send(Buffer.concat([CLIENT_FLAGS, encodeOption(NBD_OPT_EXPORT_NAME, new Uint8Array(0))]));
    expect((await beyond.end()).length).toBe(0);
    expect(failures()).toEqual([FULL]);
    expect(await readsWell(client)).toBe(true);
  });

  test('is bounded for clients that negotiate at the same time too', async () => {
    await start({ clientsMax: 2 });
    const crowd = await Promise.all(Array.from({ length: 8 }, stranger));
    for (const client of crowd) client.send(Buffer.concat([CLIENT_FLAGS, GO]));
    const types = await Promise.all(crowd.map(async (client) => (await client.read(20)).readUInt32BE(12)));
    expect(types.filter((type) => type === NBD_REP_INFO)).toHaveLength(2);
    expect(types.filter((type) => type === NBD_REP_ERR_POLICY)).toHaveLength(6);
    for (const client of crowd) client.close();
    await expect.poll(() => failures().length).toBe(6);
    expect(failures()).toEqual(Array(6).fill('2 clients are served already, no more are allowed'));
  });

  test('lets a client in that comes right behind the one that leaves, however often', async () => {
    await start({ clientsMax: 1 });
    for (let turn = 0; turn < 20; turn += 1) {
      const client = await attach();
      expect(await readsWell(client)).toBe(true);
      client.close();
    }
    expect(failures()).toEqual([]);
  });

  test('says whether a client may have several connections', async () => {
    await start({ clientsMax: 1 });
    const flagsNow = async () => {
      const answer = await negotiate({ kind: 'info', exportName: '' });
      return 'export' in answer ? answer.export.flags & NBD_FLAG_CAN_MULTI_CONN : undefined;
    };
    expect(await flagsNow()).toBe(0);
    await served.server?.stop();
    await start({ clientsMax: 2 });
    expect(await flagsNow()).toBe(NBD_FLAG_CAN_MULTI_CONN);
  });

  test('has no bound of its own where none is asked for', async () => {
    await start();
    const clients = await Promise.all([1, 2, 3, 4].map(() => attach()));
    expect(await Promise.all(clients.map(readsWell))).toEqual([true, true, true, true]);
  });
});

describe('the end of a server', () => {
  test('comes when the last client leaves, unless it is persistent', async () => {
    const { ended, address } = await start({ persistent: false });
    const [one, two] = [await attach(), await attach()];
    one.close();
    await expect.poll(() => served.events.filter(({ kind }) => kind === 'ended').length).toBe(1);
    expect(await readsWell(two)).toBe(true);
    two.send(two.encode({ type: NBD_CMD_DISC }));
    await ended;
    await expect(connect(address as Address, AbortSignal.timeout(1_000))).rejects.toMatchObject({ code: 'refused' });
  });

  test('does not come when somebody only asked what is there', async () => {
    await start({ persistent: false });
    await negotiate({ kind: 'list' });
    await negotiate({ kind: 'info', exportName: '' });
    (await served.open()).destroy();
    await expect.poll(() => failures().length).toBe(3);
    expect(await readsWell(await attach())).toBe(true);
  });

  test('waits for a client that negotiates while the last one leaves', async () => {
    const { ended } = await start({ persistent: false });
    const [last, next] = [await attach(), await stranger()];
    last.close();
    await expect.poll(() => served.events.at(-1)?.kind).toBe('ended');
    next.send(Buffer.concat([CLIENT_FLAGS, GO]));
    await next.read(GO_REPLIES_BYTES);
    expect(await readsWell(next)).toBe(true);
    next.close();
    await ended;
  });

  test('by stop drains busy, idle and half-negotiated clients', async () => {
    const started = await start();
    const [busy, idle] = [await attach(), await attach()];
    const halfway = await stranger();
    // There is always a request on its way: the server's end of the connection never runs dry.
    const write = (block: number) =>
      busy.send(busy.encode({ type: NBD_CMD_WRITE, offsetBytes: block * 512, data: Buffer.alloc(512, block % 250) }));
    for (let block = 0; block < 256; block += 1) write(block);
    let acknowledged = -1;
    const working = (async () => {
      for (let block = 256; ; block += 1) {
        const { error } = await busy.reply();
        if (error !== 0) return error;
        acknowledged += 1;
        write(block % 8_192);
      }
    })().catch((error: Error) => error.message);
    await expect.poll(() => acknowledged).toBeGreaterThan(100);
    await started.stop();
    const ends = served.events.flatMap((event) => (event.kind === 'ended' ? [event.end] : []));
    expect(ends).toEqual(Array(2).fill({ kind: 'left', how: 'stopped' })); // neither was cut off
    expect([NBD_ESHUTDOWN, 'the server has ended the connection']).toContain(await working);
    await Promise.all([idle.end(), halfway.end()]);
    const block = acknowledged % 8_192;
    expect(readFileSync(served.path)[block * 512]).toBe(block % 250);
    expect(failures()).toEqual([expect.stringContaining('interrupted')]);
  });
});

test('a server that ends tells who negotiates, and takes nobody new', async () => {
  const started = await start();
  const [busy, halfway, leaving] = [await attach(), await stranger(), await stranger()];
  // The disk takes its time, so that the server waits for it.
  const lock = new SharedLock(served.image.handle.shared, SYNC_LOCK);
  lock.take();
  const write = busy.encode({ type: NBD_CMD_WRITE, data: Buffer.alloc(512, 8) });
  busy.send(Buffer.concat([write, busy.encode({ type: NBD_CMD_FLUSH })]));
  expect(await busy.reply()).toMatchObject({ error: 0 });
  const stopped = started.stop();
  halfway.send(Buffer.concat([CLIENT_FLAGS, GO]));
  expect((await halfway.read(20)).readUInt32BE(12)).toBe(NBD_REP_ERR_SHUTDOWN);
  leaving.send(Buffer.concat([CLIENT_FLAGS, encodeOption(NBD_OPT_EXPORT_NAME, new Uint8Array(0))]));
  expect(await leaving.end()).toHaveLength(0);
  await expect(connect(started.address as Address, AbortSignal.timeout(1_000))).rejects.toMatchObject({
    code: 'refused',
  });
  lock.leave();
  expect(await busy.reply()).toMatchObject({ error: 0 });
  await stopped;
});

test.each(['tcp', 'unix'] as const)(
  'a server that ends answers what has come over %s by then, and what comes behind that with ESHUTDOWN',
  async (kind) => {
    const started = await start(kind === 'tcp' ? {} : { address: { kind, path: join(served.folder, 'socket') } });
    const client = await attach();
    const send = (...requests: AskedRequest[]) =>
      client.send(Buffer.concat(requests.map((request) => client.encode(request))));
    const write = (byte: number) => ({ type: NBD_CMD_WRITE, data: Buffer.alloc(512, byte) });
    // The disk takes its time.
    const lock = new SharedLock(served.image.handle.shared, SYNC_LOCK);
    lock.take();
    send(write(8), { type: NBD_CMD_FLUSH });
    expect(await client.reply()).toMatchObject({ cookie: 1, error: 0 });
    const late = [write(9), { type: NBD_CMD_READ, lengthBytes: 512 }, { type: NBD_CMD_FLUSH }];
    send(...late);
    const stopped = started.stop();
    // To a unix socket whose other end is not read any more nothing can be sent, as if the server were gone already.
    if (kind === 'tcp') send(...late);
    await new Promise((resolve) => setTimeout(resolve, 20));
    lock.leave();
    expect(await client.reply()).toMatchObject({ cookie: 2, error: 0 });
    for (let cookie = 3; cookie < 3 + late.length * (kind === 'tcp' ? 2 : 1); cookie += 1) {
      expect(await client.reply()).toMatchObject({ cookie, error: NBD_ESHUTDOWN });
    }
    expect(await client.end()).toHaveLength(0);
    await stopped;
    expect(readFileSync(served.path)[0]).toBe(8);
  },
);

describe('a client that is slow to read', () => {
  test('still gets the whole answer to its request when the server is stopped', async () => {
    const started = await start();
    const client = await attach();
    expect(await readsWell(client)).toBe(true); // its thread has begun
    client.send(client.encode({ type: NBD_CMD_READ, lengthBytes: SIZE_BYTES }));
    await client.read(NBD_SIMPLE_REPLY_BYTES); // the server is about it: one that has not been read by then is refused
    client.pause();
    const stopped = started.stop();
    await new Promise((resolve) => setTimeout(resolve, 250));
    client.resume();
    expect((await client.read(SIZE_BYTES)).equals(Buffer.alloc(SIZE_BYTES, 1))).toBe(true);
    await stopped;
  });
});
