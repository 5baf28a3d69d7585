import { Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { socketPair } from '#tsnbd/kernel/fd-calls.js';
import { ClientHandshake } from '#tsnbd/protocol/client-handshake.js';
import { DEFAULT_BLOCK_SIZES } from '#tsnbd/protocol/export-info.js';
import { ServerHandshake } from '#tsnbd/protocol/server-handshake.js';
import { runHandshake } from '#tsnbd/transport/handshake-socket.js';
import { TransmissionSocket } from '#tsnbd/transport/transmission-socket.js';

const READ = { type: 0, offsetBytes: 0, lengthBytes: 4 };
const FLUSH = { type: 3 };
const open: Socket[] = [];
afterEach(() => {
  for (const socket of open.splice(0)) socket.destroy();
});

/** A client behind a handshake, at the other end a server that says what a test wants. */
async function connected() {
  const [socket, server] = socketPair().map((fd) => new Socket({ fd, readable: true, writable: true }));
  if (socket === undefined || server === undefined) throw new Error('two sockets');
  open.push(socket, server);
  const disk = { name: '', sizeBytes: 4096, flags: 1 };
  const machine = new ServerHandshake({ find: () => disk, list: () => [disk] });
  const asked = runHandshake(server, machine, AbortSignal.timeout(5_000));
  await runHandshake(socket, new ClientHandshake({ kind: 'go', exportName: '' }), AbortSignal.timeout(5_000));
  await asked;
  const terms = { replyStyle: 'simple', sizeBytes: 4096, contexts: [], blockSizes: DEFAULT_BLOCK_SIZES } as const;
  return { socket, server, client: () => new TransmissionSocket(socket, terms) };
}

function simple(number: number, data = ''): Buffer {
  return Buffer.concat([
    Buffer.from(`6744669800000000c0ffee00${String(number).padStart(8, '0')}`, 'hex'),
    Buffer.from(data),
  ]);
}

const SOON_MS = 10_000;

describe('requests on a socket', () => {
  test('get their replies, in whatever order and pieces they come', async () => {
    const { server, client: begin } = await connected();
    const client = begin();
    const [read, flushed] = [client.ask(READ, SOON_MS), client.ask(FLUSH, SOON_MS)];
    server.write(simple(2));
    expect(await flushed).toMatchObject({ error: 0 });
    for (const byte of simple(1, 'data')) {
      server.write(Buffer.from([byte]));
      await new Promise(setImmediate);
    }
    expect(Buffer.from((await read).data).toString()).toBe('data');
    expect(await Promise.all([client.ask(READ, SOON_MS), server.write(simple(3, 'more'))])).toMatchObject([
      { error: 0 },
      true,
    ]);
  });

  test('also those that came before anybody listened', async () => {
    const { server, client: begin } = await connected();
    server.write(simple(1, 'fast'));
    await new Promise((resolve) => setTimeout(resolve, 50));
    const client = begin();
    expect(Buffer.from((await client.ask(READ, SOON_MS)).data).toString()).toBe('fast');
  });

  test('all fail when the server does something wrong, and so do later ones', async () => {
    const { server, client: begin } = await connected();
    const client = begin();
    const replies = [client.ask(READ, SOON_MS), client.ask(FLUSH, SOON_MS)];
    server.write(Buffer.alloc(16));
    for (const reply of replies) await expect(reply).rejects.toMatchObject({ code: 'violation' });
    await expect(client.ask(FLUSH, SOON_MS)).rejects.toMatchObject({ code: 'violation' });
  });

  test.each(['end', 'destroy'] as const)('all fail when the server goes (%s)', async (deed) => {
    const { server, client: begin } = await connected();
    const client = begin();
    const replies = [client.ask(READ, SOON_MS), client.ask(FLUSH, SOON_MS)];
    server[deed]();
    for (const reply of replies) await expect(reply).rejects.toMatchObject({ code: 'closed' });
    await expect(client.ask(FLUSH, SOON_MS)).rejects.toMatchObject({ code: 'closed' });
  });

  test('fail at once when the server had gone before', async () => {
    const { server, socket, client: begin } = await connected();
    server.destroy();
    socket.destroy();
    await expect(begin().ask(FLUSH, SOON_MS)).rejects.toMatchObject({ code: 'closed' });
  });

  test('fail at their deadline, and the connection with them', async () => {
    const { client: begin } = await connected();
    const client = begin();
    const other = client.ask(READ, SOON_MS);
    await expect(client.ask(FLUSH, 20)).rejects.toMatchObject({
      code: 'time-limit',
      message: 'the server does not answer a request within the time limit',
    });
    await expect(other).rejects.toMatchObject({ code: 'time-limit' });
    await expect(client.ask(FLUSH, SOON_MS)).rejects.toMatchObject({ code: 'time-limit' });
  });
});

test('the client takes its leave', async () => {
  const { server, socket, client: begin } = await connected();
  const client = begin();
  const said: Buffer[] = [];
  server.removeAllListeners('readable');
  const { readOn } = await import('#tsnbd/transport/detach-fd.js');
  readOn(server);
  server.on('data', (piece) => said.push(piece));
  const gone = new Promise((resolve) => server.on('end', resolve));
  client.leave();
  await gone;
  expect(Buffer.concat(said).toString('hex')).toMatch(/^2560951300000002c0ffee00/);
  await expect.poll(() => socket.destroyed).toBe(true);
});
