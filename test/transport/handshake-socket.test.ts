import { closeSync, readSync, writeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ClientHandshake } from '#tsnbd/protocol/client-handshake.js';
import { NBD_FLAG_HAS_FLAGS, NBD_OPT_GO, NBD_OPT_LIST } from '#tsnbd/protocol/constants.js';
import { encodeExportQuestion, encodeOption } from '#tsnbd/protocol/option.js';
import { type ExportDirectory, ServerHandshake, type ServerOutcome } from '#tsnbd/protocol/server-handshake.js';
import type { Address } from '#tsnbd/transport/address.js';
import { connect } from '#tsnbd/transport/connect.js';
import { detachFd } from '#tsnbd/transport/detach-fd.js';
import { type HandshakeMachine, runHandshake } from '#tsnbd/transport/handshake-socket.js';
import { type Listener, listen } from '#tsnbd/transport/listen.js';
import { openFlags } from '../open-fds.js';
import { readSoon } from '../read-soon.js';

const disk = { name: '', description: 'x'.repeat(4000), sizeBytes: 1_048_576, flags: NBD_FLAG_HAS_FLAGS };
const directory: ExportDirectory = { find: (name) => (name === '' ? disk : undefined), list: () => [disk] };
const go = encodeOption(NBD_OPT_GO, encodeExportQuestion({ exportName: '', infoTypes: [] }));
const list = encodeOption(NBD_OPT_LIST, new Uint8Array(0));
const clientFlags = new Uint8Array([0, 0, 0, 3]);
const goal = { kind: 'go', exportName: '' } as const;

let listener: Listener;
let client: Socket;
let server: Socket;

beforeEach(async () => {
  let connected: (socket: Socket) => void = () => {};
  const accepted = new Promise<Socket>((resolve) => {
    connected = resolve;
  });
  listener = await listen(
    { kind: 'tcp', host: '127.0.0.1', port: 0 },
    { onConnection: connected, onDropped: () => {} },
  );
  client = await connect(listener.address as Address, AbortSignal.timeout(5_000));
  server = await accepted;
});
afterEach(() => {
  client.destroy();
  server.destroy();
  listener.close();
});

const serve = (limitMs = 5_000): Promise<ServerOutcome> =>
  runHandshake(server, new ServerHandshake(directory), AbortSignal.timeout(limitMs));
const ask = (limitMs = 5_000) => runHandshake(client, new ClientHandshake(goal), AbortSignal.timeout(limitMs));
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Resolves once the system has all of it: `readAll` holds up this thread, and with it what is still to be sent. */
const write = (socket: Socket, bytes: Uint8Array) => new Promise<unknown>((resolve) => socket.write(bytes, resolve));

/** Reads exactly so many bytes from a blocking fd, which must have been sent already. */
function readAll(fd: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; ) {
    const received = readSoon(fd, bytes, at);
    expect(received, `after ${at} of ${length} bytes`).toBeGreaterThan(0);
    at += received;
  }
  return bytes;
}

const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;

describe('a handshake over a socket', () => {
  test('ends in the transmission phase on both sides', async () => {
    const [asked, served] = await Promise.all([ask(), serve()]);
    expect(asked).toMatchObject({ kind: 'transmission', export: { sizeBytes: disk.sizeBytes } });
    expect(served).toMatchObject({ kind: 'transmission', exportName: '' });
  });

  test('gives both connections up as fds that go on where it ended', async () => {
    await Promise.all([ask(), serve()]);
    const [clientFd, serverFd] = await Promise.all([detachFd(client), detachFd(server)]);
    expect([openFlags(clientFd) & (O_NONBLOCK | O_CLOEXEC), openFlags(serverFd) & (O_NONBLOCK | O_CLOEXEC)]).toEqual([
      O_CLOEXEC,
      O_CLOEXEC,
    ]);
    writeSync(clientFd, 'request');
    expect(readAll(serverFd, 7).toString()).toBe('request');
    writeSync(serverFd, 'reply');
    expect(readAll(clientFd, 5).toString()).toBe('reply');
    closeSync(clientFd);
    expect(readSync(serverFd, Buffer.alloc(1), 0, 1, null)).toBe(0);
    closeSync(serverFd);
  });

  test('loses no byte that a hasty client sends behind it', async () => {
    const outcome = serve();
    const requests = Buffer.from(Array.from({ length: 300_000 }, (_, index) => index % 251));
    await write(client, Buffer.concat([clientFlags, go, requests.subarray(0, 1_000)]));
    const served = await outcome;
    for (let at = 1_000; at < requests.length; at += 50_000) await write(client, requests.subarray(at, at + 50_000));
    await pause(100); // what the event loop wrongly read, it has now
    const fd = await detachFd(server);
    const received = served.kind === 'transmission' ? served.received : new Uint8Array(0);
    expect(received.length).toBe(1_000);
    const rest = readAll(fd, requests.length - received.length);
    expect(Buffer.concat([received, rest]).equals(requests)).toBe(true);
    closeSync(fd);
  });

  test('works with a client that sends all at once before it reads', async () => {
    client.write(Buffer.concat([clientFlags, list, list, go]));
    await pause(20);
    expect(await serve()).toMatchObject({ kind: 'transmission' });
  });

  test('hands a pipelined request of 100 kB over whole', async () => {
    await write(client, Buffer.concat([clientFlags, go, Buffer.alloc(100_000, 7)]));
    await pause(50);
    const served = await serve();
    const received = served.kind === 'transmission' ? served.received.length : 0;
    const fd = await detachFd(server);
    expect(readAll(fd, 100_000 - received).every((byte) => byte === 7)).toBe(true);
    closeSync(fd);
  });
});

describe('a peer that misbehaves in the handshake', () => {
  test('is given up at the deadline when it says nothing', async () => {
    await expect(serve(50)).rejects.toMatchObject({
      code: 'time-limit',
      message: 'cannot begin the negotiation: no answer within the time limit',
    });
  });

  test('is given up at the deadline when it stops half-way', async () => {
    client.write(Buffer.concat([clientFlags, go.subarray(0, 10)]));
    await expect(serve(100)).rejects.toMatchObject({
      code: 'time-limit',
      message: 'cannot finish the negotiation: no answer within the time limit',
    });
  });

  test('gets the machine’s words when it closes', async () => {
    server.end();
    expect(await ask()).toMatchObject({ kind: 'failed', error: { code: 'closed' } });
  });

  test('gets them too when it was gone before', async () => {
    server.resetAndDestroy();
    await new Promise((resolve) => client.once('close', resolve));
    expect(await ask()).toMatchObject({ kind: 'failed', error: { code: 'closed' } });
  });

  test('is told apart when it speaks another protocol', async () => {
    server.write('220 mail.example ESMTP\r\n');
    expect(await ask()).toMatchObject({ kind: 'failed', error: { code: 'not-nbd' } });
  });

  test('cannot make us hold more answers than a limit', async () => {
    const endless: HandshakeMachine<never> = {
      receive: () => ({ send: new Uint8Array(100_000) }),
      end: () => {
        throw new Error('not reached');
      },
    };
    const conversation = runHandshake(server, endless, AbortSignal.timeout(5_000));
    const asking = setInterval(() => client.write('more'), 1);
    await expect(conversation).rejects.toMatchObject({
      code: 'closed',
      message: 'the other side asks and asks, and does not read the answers',
    });
    clearInterval(asking);
  });

  test('cannot send the kernel bytes that came too early', async () => {
    await Promise.all([ask(), serve()]);
    client.unshift(Buffer.from('early'));
    await expect(detachFd(client)).rejects.toMatchObject({ code: 'closed' });
  });

  test('is noticed when it is gone before the socket is given up', async () => {
    await Promise.all([ask(), serve()]);
    server.destroy();
    client.destroy();
    await expect(detachFd(client)).rejects.toMatchObject({
      code: 'closed',
      message: 'the connection was closed by the other side',
    });
  });
});
