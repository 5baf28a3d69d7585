import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { expect, test } from 'vitest';
import { libc, loadLibc } from '#tsnbd/kernel/libc.js';
import { IPPROTO_TCP, SOL_SOCKET } from '#tsnbd/kernel/libc-abi.js';
import type { Address } from '#tsnbd/transport/address.js';
import { connect, KEEPALIVE_IDLE_MS } from '#tsnbd/transport/connect.js';
import { detachFd } from '#tsnbd/transport/detach-fd.js';
import { listen } from '#tsnbd/transport/listen.js';

// <sys/socket.h>, <netinet/tcp.h>
const SO_KEEPALIVE = 9;
const TCP_NODELAY = 1;
const TCP_KEEPIDLE = 4;

function option(fd: number, level: number, name: number): number {
  const value = new Uint8Array(4);
  const length = new Uint8Array(new Uint32Array([value.length]).buffer);
  expect(libc.getsockopt(fd, level, name, value, length)).toBe(0);
  return new DataView(value.buffer).getInt32(0, true);
}

test('both ends of a TCP connection, once they are given up, send at once and ask a silent peer in time', async () => {
  loadLibc();
  let onConnection: (socket: Socket) => void = () => {};
  const accepted = new Promise<Socket>((resolve) => {
    onConnection = resolve;
  });
  const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 }, { onConnection, onDropped: () => {} });
  const sockets = [await connect(listener.address as Address, AbortSignal.timeout(5_000)), await accepted];
  const fds = await Promise.all(sockets.map(detachFd));
  for (const fd of fds) {
    expect({
      noDelay: option(fd, IPPROTO_TCP, TCP_NODELAY),
      keepAlive: option(fd, SOL_SOCKET, SO_KEEPALIVE),
      idleSeconds: option(fd, IPPROTO_TCP, TCP_KEEPIDLE),
    }).toEqual({ noDelay: 1, keepAlive: 1, idleSeconds: KEEPALIVE_IDLE_MS / 1_000 });
  }
  for (const fd of fds) closeSync(fd);
  listener.close();
});
