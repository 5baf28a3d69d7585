import dns from 'node:dns/promises';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { connect as connectSocket, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { connect } from '#tsnbd/transport/connect.js';

let folder: string;
const servers: Server[] = [];
const realLookup = dns.lookup;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-connect-'));
});
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
  rmSync(folder, { recursive: true });
  setLookup(realLookup);
});

async function listenOn(where: { path: string } | { host: string; port: number }): Promise<number> {
  const server = createServer((socket) => socket.end('hello')).listen(where);
  servers.push(server);
  await once(server, 'listening');
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

function setLookup(lookup: unknown): void {
  Object.assign(dns, { lookup });
  syncBuiltinESMExports();
}

const namesAddresses = (...addresses: string[]) =>
  setLookup(async () => addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })));

async function firstWord(address: Parameters<typeof connect>[0], limitMs = 5_000): Promise<string> {
  const socket = await connect(address, AbortSignal.timeout(limitMs));
  const [word] = await once(socket, 'data');
  socket.destroy();
  return String(word);
}

/** The address of a port that nobody listens on. */
async function deadPort(host: string): Promise<number> {
  const port = await listenOn({ host, port: 0 });
  const server = servers.pop();
  await new Promise((resolve) => server?.close(resolve));
  return port;
}

describe('connecting', () => {
  test('reaches a server over IPv4', async () => {
    const port = await listenOn({ host: '127.0.0.1', port: 0 });
    expect(await firstWord({ kind: 'tcp', host: '127.0.0.1', port })).toBe('hello');
  });

  test('reaches a server over IPv6', async () => {
    const port = await listenOn({ host: '::1', port: 0 });
    expect(await firstWord({ kind: 'tcp', host: '::1', port })).toBe('hello');
  });

  test('reaches a server over a unix socket', async () => {
    const path = join(folder, 'socket');
    await listenOn({ path });
    expect(await firstWord({ kind: 'unix', path })).toBe('hello');
  });

  test('takes the next address of a name when the first does not answer', async () => {
    const port = await listenOn({ host: '127.0.0.1', port: 0 });
    namesAddresses('::1', '127.0.0.1');
    expect(await firstWord({ kind: 'tcp', host: 'disks.example', port })).toBe('hello');
  });

  test('says of each address of a name why it failed', async () => {
    const port = await deadPort('127.0.0.1');
    namesAddresses('::1', '127.0.0.1');
    await expect(firstWord({ kind: 'tcp', host: 'disks.example', port })).rejects.toMatchObject({
      code: 'refused',
      message: `cannot connect to disks.example port ${port}: ::1: connection refused (ECONNREFUSED); 127.0.0.1: connection refused (ECONNREFUSED)`,
    });
  });

  test('says that nobody listens', async () => {
    const port = await deadPort('127.0.0.1');
    await expect(firstWord({ kind: 'tcp', host: '127.0.0.1', port })).rejects.toMatchObject({
      code: 'refused',
      message: `cannot connect to 127.0.0.1 port ${port}: connection refused (ECONNREFUSED)`,
    });
  });

  test('says that a host is not known', async () => {
    setLookup(async () => Promise.reject(Object.assign(new Error('no'), { code: 'ENOTFOUND' })));
    await expect(firstWord({ kind: 'tcp', host: 'disks.example', port: 1 })).rejects.toMatchObject({
      code: 'unreachable',
      message: 'cannot connect to disks.example port 1: no such host is known',
    });
  });

  test('says that there is no such unix socket', async () => {
    const path = join(folder, 'none');
    await expect(firstWord({ kind: 'unix', path })).rejects.toMatchObject({
      code: 'unreachable',
      message: `cannot connect to ${path}: there is no such socket (ENOENT)`,
    });
  });

  test('takes a socket path of 107 bytes and refuses one of 108', async () => {
    const path = join(folder, 'x'.repeat(107 - folder.length - 1));
    await listenOn({ path });
    expect(await firstWord({ kind: 'unix', path })).toBe('hello');
    await expect(firstWord({ kind: 'unix', path: `${path}x` })).rejects.toMatchObject({
      code: 'address',
      message: expect.stringContaining('may have 107 bytes, this one has 108'),
    });
  });
});

describe('a connect that gets no answer', () => {
  test('ends at the deadline while the name is looked up', async () => {
    setLookup(() => new Promise(() => {}));
    await expect(firstWord({ kind: 'tcp', host: 'disks.example', port: 1 }, 50)).rejects.toMatchObject({
      code: 'time-limit',
      message: 'cannot look up disks.example: no answer within the time limit',
    });
  });

  test('ends at the deadline, moves to the next address before, and ends when we are told to stop', async () => {
    const worker = new Worker(new URL('./deaf-listener.js', import.meta.url));
    const [port] = await once(worker, 'message');
    await once(worker, 'message');
    const fillers = [1, 2, 3].map(() => connectSocket({ host: '127.0.0.1', port }));
    await new Promise((resolve) => setTimeout(resolve, 100));
    try {
      const address = { kind: 'tcp', host: '127.0.0.1', port } as const;
      await expect(firstWord(address, 200)).rejects.toMatchObject({
        code: 'time-limit',
        message: `cannot connect to 127.0.0.1 port ${port}: no answer within the time limit`,
      });

      const stop = new AbortController();
      const interrupted = connect(address, stop.signal);
      setTimeout(() => stop.abort(), 50);
      await expect(interrupted).rejects.toMatchObject({ code: 'interrupted' });

      await listenOn({ host: '127.0.0.2', port });
      namesAddresses('127.0.0.1', '127.0.0.2');
      expect(await firstWord({ ...address, host: 'disks.example' }, 8_000)).toBe('hello');
    } finally {
      for (const filler of fillers) filler.destroy();
      await worker.terminate();
    }
  });
});

test('a socket whose name is abstract is one, and is told with the @ that ss and /proc have for it', async () => {
  const path = `\0tsnbd-connect-${process.pid}`;
  await listenOn({ path });
  expect(await firstWord({ kind: 'unix', path })).toBe('hello');
  await expect(firstWord({ kind: 'unix', path: `${path}x` })).rejects.toThrow(
    `cannot connect to @tsnbd-connect-${process.pid}x: `,
  );
});
