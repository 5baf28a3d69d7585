import { closeSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { expect } from './errors.js';
import { libc } from './libc.js';
import {
  AF_UNIX,
  IPPROTO_TCP,
  POLLHUP,
  POLLIN,
  POLLOUT,
  SK_MEMINFO_VARS,
  SK_MEMINFO_WMEM_ALLOC,
  SO_DOMAIN,
  SO_MEMINFO,
  SO_RCVTIMEO,
  SO_SNDBUF,
  SO_SNDBUFFORCE,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOL_SOCKET,
  STRUCT_POLLFD,
  STRUCT_TCP_INFO,
  STRUCT_TIMEVAL,
  TCP_INFO,
} from './libc-abi.js';
import { PlacedBytes } from './memory.js';

const { EINTR } = constants.errno;

/** Waits until there is something to read, or the end; `limitMs` < 0 is without limit. Answers 0 at the limit, else 1 or −errno. */
export function waitReadable(socketFd: number, limitMs: number): number {
  return wait(socketFd, POLLIN, limitMs);
}

/**
 * Waits until one of three can be read, or is at its end; there is no second or third where it is below 0. Answers 1 if the first is,
 * 0 if only others are, or −errno.
 */
export function waitAnyReadable(socketFd: number, secondFd: number, thirdFd: number): number {
  watch(0, socketFd);
  watch(1, secondFd);
  watch(2, thirdFd);
  for (;;) {
    const result = libc.poll(pollfds.address, POLLFDS, -1);
    if (result === -EINTR) continue;
    if (result < 0) return result;
    return pollfds.view.getInt16(STRUCT_POLLFD.revents, true) === 0 ? 0 : 1;
  }
}

/** Waits until something can be written, or an error is to be told. Answers 1 or −errno. */
export function waitWritable(socketFd: number): number {
  return wait(socketFd, POLLOUT, -1);
}

/** Whether a write of a few bytes would not wait; an error that a write would tell is no reason to wait either. */
export function hasRoom(socketFd: number): boolean {
  return look(socketFd, POLLOUT) !== 0;
}

/** Whether a connection is over in both directions: no byte can be sent or received any more. */
export function isHungUp(socketFd: number): boolean {
  return (look(socketFd, 0) & POLLHUP) !== 0;
}

/** A read that waits longer than that answers EAGAIN. @throws KernelError 'system' */
export function limitReads(socketFd: number, limitSeconds: number): void {
  const duration = new Uint8Array(STRUCT_TIMEVAL.sizeof);
  new DataView(duration.buffer).setBigInt64(STRUCT_TIMEVAL.tv_sec, BigInt(limitSeconds), true);
  expect('limit the time of reads', libc.setsockopt(socketFd, SOL_SOCKET, SO_RCVTIMEO, duration));
}

export function isUnixSocket(socketFd: number): boolean {
  return readOption(socketFd, SO_DOMAIN) === AF_UNIX;
}

/**
 * Asks for a send buffer of `bytes`: as root beyond net.core.wmem_max, else up to it. Answers what was granted, in the
 * same measure (the kernel doubles it for its own use and tells the double: socket(7)).
 */
export function growSendBuffer(socketFd: number, bytes: number): number {
  const value = new Uint8Array(4);
  new DataView(value.buffer).setInt32(0, bytes, true);
  const forced = libc.setsockopt(socketFd, SOL_SOCKET, SO_SNDBUFFORCE, value);
  if (forced < 0) libc.setsockopt(socketFd, SOL_SOCKET, SO_SNDBUF, value);
  return readOption(socketFd, SO_SNDBUF) / 2;
}

/** Whether whoever reads at the other end of a unix socket has all that was sent; false where it cannot be told. */
export function isAllReceived(socketFd: number): boolean {
  return unreceivedBytes(socketFd) === 0;
}

/** Whether `isAllReceived` can be told. */
export function tellsReceived(socketFd: number): boolean {
  return unreceivedBytes(socketFd) >= 0;
}

/**
 * While TCP sends again, in vain until now, what the other side has not acknowledged: for how long that has acknowledged
 * nothing at all, in milliseconds. Absent otherwise. Who is there and takes no more, acknowledges that.
 */
export function retransmittingMs(socketFd: number): number | undefined {
  const info = new Uint8Array(STRUCT_TCP_INFO.sizeof);
  const length = Uint8Array.of(info.length, 0, 0, 0);
  if (libc.getsockopt(socketFd, IPPROTO_TCP, TCP_INFO, info, length) < 0) return undefined;
  if (info[STRUCT_TCP_INFO.tcpi_retransmits] === 0) return undefined;
  return new DataView(info.buffer).getUint32(STRUCT_TCP_INFO.tcpi_last_ack_recv, true);
}

/** Sends one datagram to a unix socket, of an abstract name where the path begins with a zero, or not: answers 0 or −errno, and does not wait. */
export function sendDatagram(path: string, bytes: Uint8Array): number {
  const fd = libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return fd;
  // sun_family, sun_path and its zero; to an abstract name every byte counts (unix(7)).
  const address = new Uint8Array(2 + Buffer.byteLength(path) + (path.startsWith('\0') ? 0 : 1));
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(Buffer.from(path), 2);
  const connected = libc.connect(fd, address);
  try {
    if (connected === 0) writeSync(fd, bytes);
    return connected;
  } catch (error) {
    return (error as NodeJS.ErrnoException).errno ?? -1;
  } finally {
    closeSync(fd);
  }
}

function readOption(socketFd: number, option: number): number {
  const value = new Uint8Array(4);
  const length = Uint8Array.of(value.length, 0, 0, 0);
  expect('read an option of a socket', libc.getsockopt(socketFd, SOL_SOCKET, option, value, length));
  return new DataView(value.buffer).getInt32(0, true);
}

/** What the kernel counts for what was sent and not received, more than its bytes; or −errno. */
function unreceivedBytes(socketFd: number): number {
  const meminfo = new Uint8Array(4 * SK_MEMINFO_VARS);
  const length = Uint8Array.of(meminfo.length, 0, 0, 0);
  const result = libc.getsockopt(socketFd, SOL_SOCKET, SO_MEMINFO, meminfo, length);
  return result < 0 ? result : new DataView(meminfo.buffer).getUint32(4 * SK_MEMINFO_WMEM_ALLOC, true);
}

const POLLFDS = 3;
const pollfd = new PlacedBytes(STRUCT_POLLFD.sizeof);
const pollfds = new PlacedBytes(POLLFDS * STRUCT_POLLFD.sizeof);

function watch(index: number, fd: number): void {
  pollfds.view.setInt32(index * STRUCT_POLLFD.sizeof + STRUCT_POLLFD.fd, fd, true);
  pollfds.view.setInt16(index * STRUCT_POLLFD.sizeof + STRUCT_POLLFD.events, POLLIN, true);
}

function wait(socketFd: number, events: number, limitMs: number): number {
  pollfd.view.setInt32(STRUCT_POLLFD.fd, socketFd, true);
  pollfd.view.setInt16(STRUCT_POLLFD.events, events, true);
  for (;;) {
    const result = libc.poll(pollfd.address, 1, limitMs);
    if (result !== -EINTR) return result;
  }
}

/** What poll(2) tells of a socket at this moment: of `events`, and of its end; nothing if it cannot be asked. */
function look(socketFd: number, events: number): number {
  return wait(socketFd, events, 0) > 0 ? pollfd.view.getInt16(STRUCT_POLLFD.revents, true) : 0;
}
