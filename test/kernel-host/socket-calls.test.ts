import { once } from 'node:events';
import { closeSync, writeSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { duplicateFd, setNonBlocking, shutdownFd, shutdownReading, socketPair } from '#tsnbd/kernel/fd-calls.js';
import { hasRoom, isHungUp } from '#tsnbd/kernel/socket-calls.js';

const fdOf = (socket: Socket) => (socket as unknown as { _handle: { fd: number } })._handle.fd;

describe('a unix socket', () => {
  let ours = -1;
  let theirs = -1;
  beforeEach(() => {
    [ours, theirs] = socketPair();
  });
  afterEach(() => {
    closeSync(ours);
    if (theirs !== -1) closeSync(theirs);
  });

  it('has room until it is full, and is not hung up', () => {
    expect([hasRoom(ours), isHungUp(ours)]).toEqual([true, false]);
    setNonBlocking(ours);
    expect(() => {
      for (;;) writeSync(ours, Buffer.alloc(65_536));
    }).toThrow('EAGAIN');
    expect([hasRoom(ours), isHungUp(ours)]).toEqual([false, false]);
    shutdownFd(ours);
    expect([hasRoom(ours), isHungUp(ours)]).toEqual([true, true]);
  });

  it('that is none is not hung up', () => {
    expect(isHungUp(99_999)).toBe(false);
  });

  it('is hung up once the other end is closed, not when it only says no more', () => {
    shutdownReading(ours);
    expect(isHungUp(ours)).toBe(false);
    closeSync(theirs);
    theirs = -1;
    expect([hasRoom(ours), isHungUp(ours)]).toEqual([true, true]);
  });
});

it('a TCP connection is hung up when it is over in both directions, seen by a copy of its socket', async () => {
  const server = createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const accepted = once(server, 'connection') as Promise<[Socket]>;
  const client = connect({ ...(server.address() as { port: number }), allowHalfOpen: true });
  await once(client, 'connect');
  const [peer] = await accepted;
  const copy = duplicateFd(fdOf(client));
  try {
    expect([hasRoom(copy), isHungUp(copy)]).toEqual([true, false]);
    client.resume();
    peer.end();
    await once(client, 'end');
    expect(isHungUp(copy)).toBe(false); // the kernel's own answer to that is a shutdown in both directions
    shutdownFd(copy);
    expect(isHungUp(copy)).toBe(true);
  } finally {
    closeSync(copy);
    client.destroy();
    peer.destroy();
    server.close();
  }
});
