import { once } from 'node:events';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { duplicateFd } from '#tsnbd/kernel/fd-calls.js';
import type { Address, ListenAddress } from '#tsnbd/transport/address.js';
import { connect } from '#tsnbd/transport/connect.js';
import { type Listener, listen, OPEN_SOCKETS_MAX } from '#tsnbd/transport/listen.js';

let folder: string;
const listeners: Listener[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-listen-'));
});
afterEach(() => {
  for (const listener of listeners.splice(0)) listener.close();
  rmSync(folder, { recursive: true });
});

/** Listens, and greets everyone who comes. */
async function greet(address: Address): Promise<Address> {
  return (await welcome(address)).address as Address;
}

async function welcome(address: ListenAddress): Promise<Listener> {
  const onConnection = (socket: Socket) => socket.end('hello');
  const listener = await listen(address, { onConnection, onDropped: () => {} });
  listeners.push(listener);
  return listener;
}

async function firstWord(address: Address): Promise<string> {
  const socket = await connect(address, AbortSignal.timeout(5_000));
  const [word] = await once(socket, 'data');
  socket.destroy();
  return String(word);
}

describe('listening', () => {
  test('takes any port and tells which', async () => {
    const address = await greet({ kind: 'tcp', host: '127.0.0.1', port: 0 });
    expect(address).toMatchObject({ kind: 'tcp', host: '127.0.0.1', port: expect.any(Number) });
    expect(await firstWord(address)).toBe('hello');
  });

  test('works on IPv6', async () => {
    expect(await firstWord(await greet({ kind: 'tcp', host: '::1', port: 0 }))).toBe('hello');
  });

  test('makes a unix socket and removes it at the end', async () => {
    const path = join(folder, 'socket');
    expect(await firstWord(await greet({ kind: 'unix', path }))).toBe('hello');
    listeners.pop()?.close();
    expect(existsSync(path)).toBe(false);
  });

  test.each(['tcp', 'unix'] as const)('goes on with a %s socket that listens already', async (kind) => {
    const path = join(folder, 'socket');
    const manager = createServer().listen(kind === 'unix' ? { path: `${path}-moved` } : { host: '127.0.0.1', port: 0 });
    await once(manager, 'listening');
    const bound = manager.address();
    const fd = duplicateFd((manager as unknown as { _handle: { fd: number } })._handle.fd);
    if (kind === 'unix') renameSync(`${path}-moved`, path); // so that closing it leaves the file
    await new Promise((resolve) => manager.close(resolve));

    const port = typeof bound === 'object' && bound !== null ? bound.port : 0;
    const listener = await welcome({ kind: 'inherited', fd });
    expect(await firstWord(kind === 'unix' ? { kind, path } : { kind, host: '127.0.0.1', port })).toBe('hello');
    expect(listener.address).toEqual({ kind: 'inherited', fd });
    listeners.pop()?.close();
    await expect.poll(() => existsSync(`/proc/self/fd/${fd}`)).toBe(false);
    expect(existsSync(path)).toBe(kind === 'unix'); // whoever made it removes it
  });

  test('says that an inherited file is no socket', async () => {
    const fd = openSync('/dev/null', 'r');
    await expect(welcome({ kind: 'inherited', fd })).rejects.toMatchObject({
      code: 'address',
      message: `cannot listen on the inherited socket (file descriptor ${fd}): it is no socket that can listen`,
    });
    closeSync(fd);
  });

  test('says that a port is in use', async () => {
    const address = await greet({ kind: 'tcp', host: '127.0.0.1', port: 0 });
    const port = address.kind === 'tcp' ? address.port : 0;
    await expect(greet(address)).rejects.toMatchObject({
      code: 'address',
      message: `cannot listen on 127.0.0.1 port ${port}: address already in use (EADDRINUSE)`,
    });
  });

  test('replaces the socket file of a server that died', async () => {
    const path = join(folder, 'socket');
    const dead = createServer().listen(`${path}-moved`);
    await once(dead, 'listening');
    renameSync(`${path}-moved`, path); // so that closing it leaves the file
    await new Promise((resolve) => dead.close(resolve));
    expect(existsSync(path)).toBe(true);
    expect(await firstWord(await greet({ kind: 'unix', path }))).toBe('hello');
  });

  test('leaves the socket of a living server alone', async () => {
    const path = join(folder, 'socket');
    await greet({ kind: 'unix', path });
    await expect(greet({ kind: 'unix', path })).rejects.toMatchObject({
      code: 'address',
      message: `cannot listen on ${path}: another server listens there`,
    });
    expect(await firstWord({ kind: 'unix', path })).toBe('hello');
  });

  test('never removes a file that is no socket', async () => {
    const path = join(folder, 'disk.raw');
    writeFileSync(path, 'precious');
    await expect(greet({ kind: 'unix', path })).rejects.toThrow('there is a file that is no socket');
    expect(readFileSync(path, 'utf8')).toBe('precious');
  });

  test('says that a folder is missing', async () => {
    const path = join(folder, 'none', 'socket');
    await expect(greet({ kind: 'unix', path })).rejects.toThrow(`there is no folder ${folder}/none`);
  });

  test('refuses a path that is too long before the system cuts it off', async () => {
    const path = join(folder, 'x'.repeat(108));
    await expect(greet({ kind: 'unix', path })).rejects.toMatchObject({ code: 'address' });
  });

  test('closes connections beyond its limit at once and takes more when others have left', async () => {
    const held: Socket[] = [];
    let dropped = 0;
    const listener = await listen(
      { kind: 'unix', path: join(folder, 'socket') },
      { onConnection: (socket) => held.push(socket), onDropped: () => (dropped += 1) },
    );
    listeners.push(listener);
    const come = () => connect(listener.address as Address, AbortSignal.timeout(10_000));
    const clients = await Promise.all(Array.from({ length: OPEN_SOCKETS_MAX }, come));
    const beyond = await come();
    beyond.resume();
    await once(beyond, 'close');
    expect([held.length, dropped]).toEqual([OPEN_SOCKETS_MAX, 1]);

    held[0]?.destroy();
    await once(held[0] as Socket, 'close');
    clients.push(await come());
    await expect.poll(() => held.length).toBe(OPEN_SOCKETS_MAX + 1);
    for (const socket of [...clients, ...held]) socket.destroy();
  });
});
