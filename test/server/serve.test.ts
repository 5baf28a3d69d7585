import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectSocket, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type OpenedImage, openImage } from '#tsnbd/image/open-image.js';
import type { ClientGoal } from '#tsnbd/protocol/client-goal.js';
import { ClientHandshake } from '#tsnbd/protocol/client-handshake.js';
import {
  NBD_CMD_DISC,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_EINVAL,
  NBD_EPERM,
  NBD_ESHUTDOWN,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_GO,
  NBD_REP_ERR_POLICY,
  NBD_REP_INFO,
} from '#tsnbd/protocol/constants.js';
import { encodeExportQuestion, encodeOption } from '#tsnbd/protocol/option.js';
import { type ServeOptions, type Server, serve } from '#tsnbd/server/serve.js';
import type { ServeEvent } from '#tsnbd/server/serve-event.js';
import type { Address } from '#tsnbd/transport/address.js';
import { connect } from '#tsnbd/transport/connect.js';
import { runHandshake } from '#tsnbd/transport/handshake-socket.js';
import { listen, OPEN_SOCKETS_MAX } from '#tsnbd/transport/listen.js';
import { RawClient } from './raw-client.js';

const SIZE_BYTES = 4_194_304;
const GREETING_BYTES = 18;
const GO_REPLIES_BYTES = 20 + 12 + 20; // NBD_REP_INFO with NBD_INFO_EXPORT, NBD_REP_ACK
const TCP: Address = { kind: 'tcp', host: '127.0.0.1', port: 0 };

let folder: string;
let path: string;
let image: OpenedImage;
let events: ServeEvent[];
let server: Server | undefined;
const sockets: Socket[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-serve-'));
  path = join(folder, 'disk.raw');
  writeFileSync(path, Buffer.alloc(SIZE_BYTES, 1));
  image = openImage(path, { format: 'raw', readOnly: false });
  events = [];
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await server?.stop();
  server = undefined;
  image.close();
  rmSync(folder, { recursive: true });
});

async function start(options: Partial<ServeOptions> = {}): Promise<Server> {
  const exports = [{ name: '', description: undefined, image }];
  const all = { address: TCP, exports, clientsMax: undefined, persistent: true, handshakeLimitMs: 10_000, ...options };
  server = await serve(all, (event) => events.push(event));
  return server;
}

async function open(): Promise<Socket> {
  const socket = await connect((server?.address ?? TCP) as Address, AbortSignal.timeout(5_000));
  sockets.push(socket);
  return socket;
}

/** A socket that says whatever a test wants, from the server's first byte on. */
async function stranger(): Promise<RawClient> {
  const client = new RawClient(await open());
  await client.read(GREETING_BYTES);
  return client;
}

const CLIENT_FLAGS = Buffer.from([0, 0, 0, 3]);
const goTo = (exportName: string) => encodeOption(NBD_OPT_GO, encodeExportQuestion({ exportName, infoTypes: [] }));
const GO = goTo('');

async function attach(exportName = ''): Promise<RawClient> {
  const client = await stranger();
  client.send(Buffer.concat([CLIENT_FLAGS, goTo(exportName)]));
  await client.read(GO_REPLIES_BYTES);
  return client;
}

const negotiate = async (goal: ClientGoal) =>
  runHandshake(await open(), new ClientHandshake(goal), AbortSignal.timeout(5_000));

const readsWell = async (client: RawClient) => {
  const { error, data } = await client.ask({ type: NBD_CMD_READ, lengthBytes: 512 });
  return error === 0 && data.equals(Buffer.alloc(512, 1));
};

const failures = () => events.filter((event) => event.kind === 'not-served').map(({ error }) => error.message);

describe('a server', () => {
  test.each(['tcp', 'unix'] as const)('serves its default export over %s', async (kind) => {
    await start(kind === 'tcp' ? {} : { address: { kind, path: join(folder, 'socket') } });
    expect(await readsWell(await attach())).toBe(true);
    expect(events).toMatchObject([{ kind: 'connected', client: 1, exportName: '' }]);
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
    const other = join(folder, 'other.raw');
    writeFileSync(other, Buffer.alloc(8_192, 2));
    const second = openImage(other, { format: 'raw', readOnly: true });
    await start({
      exports: [
        { name: 'one', description: 'the first', image },
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
    expect([readFileSync(path)[0], readFileSync(other)[0]]).toEqual([3, 2]);
    const names = events.flatMap((event) => (event.kind === 'connected' ? [event.exportName] : []));
    expect(names).toEqual(['one', 'zwei/ü']);
    await server?.stop();
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
    for (const socket of sockets.slice(1)) socket.destroy();
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
    await expect.poll(() => events.filter(({ kind }) => kind === 'ended').length).toBe(1);
    expect(await readsWell(two)).toBe(true);
    two.send(two.encode({ type: NBD_CMD_DISC }));
    await ended;
    await expect(connect(address as Address, AbortSignal.timeout(1_000))).rejects.toMatchObject({ code: 'refused' });
  });

  test('does not come when somebody only asked what is there', async () => {
    await start({ persistent: false });
    await negotiate({ kind: 'list' });
    await negotiate({ kind: 'info', exportName: '' });
    (await open()).destroy();
    await expect.poll(() => failures().length).toBe(3);
    expect(await readsWell(await attach())).toBe(true);
  });

  test('waits for a client that negotiates while the last one leaves', async () => {
    const { ended } = await start({ persistent: false });
    const [last, next] = [await attach(), await stranger()];
    last.close();
    await expect.poll(() => events.at(-1)?.kind).toBe('ended');
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
    const before = Date.now();
    await started.stop();
    expect(Date.now() - before).toBeLessThan(2_000);
    expect([NBD_ESHUTDOWN, 'the server has ended the connection']).toContain(await working);
    await Promise.all([idle.end(), halfway.end()]);
    const block = acknowledged % 8_192;
    expect(readFileSync(path)[block * 512]).toBe(block % 250);
    expect(failures()).toEqual([expect.stringContaining('interrupted')]);
  });
});

describe('a client that is slow to read', () => {
  test('still gets the whole answer to its request when the server is stopped', async () => {
    const started = await start();
    const client = await attach();
    expect(await readsWell(client)).toBe(true); // its thread has begun
    client.pause();
    client.send(client.encode({ type: NBD_CMD_READ, lengthBytes: SIZE_BYTES }));
    await new Promise((resolve) => setTimeout(resolve, 200));
    const stopped = started.stop();
    await new Promise((resolve) => setTimeout(resolve, 50));
    client.resume();
    expect((await client.reply()).data.equals(Buffer.alloc(SIZE_BYTES, 1))).toBe(true);
    await stopped;
  });
});

describe('a hostile client, while another is served', () => {
  const strangers: readonly [string, (client: RawClient) => void][] = [
    ['that sends garbage instead of flags', (client) => client.send(Buffer.from('GET / HTTP/1.1\r\n\r\n'))],
    ['that sends garbage instead of an option', (client) => client.send(Buffer.alloc(64, 0xff))],
    [
      'that announces an option of 4 GiB',
      (client) => {
        client.send(Buffer.concat([CLIENT_FLAGS, Buffer.from('IHAVEOPT'), Buffer.from('00000007ffffffff', 'hex')]));
      },
    ],
    [
      'that asks for options without end',
      (client) => {
        client.send(CLIENT_FLAGS);
        for (let count = 0; count < 100; count += 1) client.send(encodeOption(99, new Uint8Array(1_000)));
      },
    ],
    [
      'that leaves in the middle of the handshake',
      (client) => {
        client.send(Buffer.concat([CLIENT_FLAGS, GO.subarray(0, 11)]));
        client.finish();
      },
    ],
  ];
  test.each(strangers)('%s is closed', async (_, misbehave) => {
    await start();
    const good = await attach();
    const bad = await stranger();
    misbehave(bad);
    await bad.end();
    await expect.poll(() => failures().length).toBe(1);
    expect(await readsWell(good)).toBe(true);
  });

  test('that sends garbage instead of a request is cut', async () => {
    await start();
    const [good, bad] = [await attach(), await attach()];
    bad.send(Buffer.alloc(1_000, 0x55));
    await bad.end();
    await expect.poll(() => events.at(-1)).toMatchObject({ kind: 'ended', end: { error: { code: 'violation' } } });
    expect(await readsWell(good)).toBe(true);
  });

  test('that sends half a request and then nothing keeps nobody waiting', async () => {
    await start();
    const [good, bad] = [await attach(), await attach()];
    bad.send(bad.encode({ type: NBD_CMD_WRITE, data: Buffer.alloc(512) }).subarray(0, 100));
    expect(await readsWell(good)).toBe(true);
    expect(await readsWell(await attach())).toBe(true);
  });

  test('that asks for 2 GiB gets an error', async () => {
    await start();
    const client = await attach();
    expect(await client.ask({ type: NBD_CMD_READ, lengthBytes: 2 ** 31 })).toMatchObject({ error: NBD_EINVAL });
    expect(await readsWell(client)).toBe(true);
    expect(await client.ask({ type: NBD_CMD_WRITE, lengthBytes: 2 ** 31 })).toMatchObject({ error: NBD_EINVAL });
    await client.end();
    expect(await readsWell(await attach())).toBe(true);
  });

  test('that stalls in the handshake is given up at the limit, if there is one', async () => {
    await start({ handshakeLimitMs: 100 });
    await (await stranger()).end();
    expect(failures()).toEqual(['cannot begin the negotiation: no answer within the time limit']);
    await server?.stop();

    await start({ handshakeLimitMs: 0 });
    const late = await stranger();
    await new Promise((resolve) => setTimeout(resolve, 300));
    late.send(Buffer.concat([CLIENT_FLAGS, GO]));
    await late.read(GO_REPLIES_BYTES);
    expect(await readsWell(late)).toBe(true);
  });

  test('in a crowd that stalls in the handshake is given up after 10 seconds, and makes room', async () => {
    await start();
    const good = await attach();
    const { address } = server ?? {};
    const port = address?.kind === 'tcp' ? address.port : 0;
    for (let count = 0; count < OPEN_SOCKETS_MAX; count += 1) {
      const socket = connectSocket({ host: '127.0.0.1', port });
      socket.on('error', () => {});
      sockets.push(socket);
    }
    await expect.poll(() => isDropped(port)).toBe(true);
    expect(await readsWell(good)).toBe(true);
    await expect.poll(() => failures().length, { timeout: 15_000 }).toBe(OPEN_SOCKETS_MAX);
    expect(failures()[0]).toBe('cannot begin the negotiation: no answer within the time limit');
    expect(await readsWell(await attach())).toBe(true);
  }, 30_000);
});

/** Whether a newcomer is closed without a greeting. */
async function isDropped(port: number): Promise<boolean> {
  const client = new RawClient(connectSocket({ host: '127.0.0.1', port }));
  const greeting = await Promise.race([client.read(GREETING_BYTES), client.end()]).catch(() => Buffer.alloc(0));
  client.close();
  return greeting.length === 0;
}
