import { constants } from 'node:os';
import { invariant } from '../base/invariant.js';
import { expect, KernelError } from './errors.js';
import { libc } from './libc.js';
import {
  AF_UNIX,
  F_DUPFD_CLOEXEC,
  F_GETFL,
  F_OFD_GETLK,
  F_OFD_SETLK,
  F_RDLCK,
  F_SETFL,
  F_UNLCK,
  F_WRLCK,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  O_NONBLOCK,
  POSIX_FADV_WILLNEED,
  SEEK_DATA,
  SEEK_END,
  SEEK_HOLE,
  SEEK_SET,
  SHUT_RD,
  SHUT_RDWR,
  SOCK_CLOEXEC,
  SOCK_STREAM,
  STRUCT_FLOCK,
} from './libc-abi.js';

const { EACCES, EAGAIN, EINTR, ENOTCONN } = constants.errno;

/**
 * Modes of `fallocate`. The size of the file stays; a hole gives its storage back, a zeroed range keeps it; a reserved one has storage
 * from then on, and its content stays.
 */
export const PUNCH_HOLE = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
export const ZERO_RANGE = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
export const RESERVE = FALLOC_FL_KEEP_SIZE;

/** A signal can interrupt fallocate(2) half-way on some file systems; doing it again is harmless, doing it for ever is not. */
const interruptionsMax = 100;

/** A second fd of the same open file, closed on exec. @throws KernelError 'system' */
export function duplicateFd(fd: number): number {
  return expect('duplicate a file descriptor', libc.fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

/** Two connected unix stream sockets, blocking, closed on exec. @throws KernelError 'system' */
export function socketPair(): readonly [number, number] {
  const fds = new Uint8Array(8);
  expect('make a pair of sockets', libc.socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
  const view = new DataView(fds.buffer);
  return [view.getInt32(0, true), view.getInt32(4, true)];
}

/** Ends a socket in both directions and wakes whoever blocks on it; one that is not connected any more is no error. */
export function shutdownFd(fd: number): void {
  endSocket(fd, SHUT_RDWR);
}

/** Wakes whoever waits for bytes of a socket with the end of the stream; it can still be written to. */
export function shutdownReading(fd: number): void {
  endSocket(fd, SHUT_RD);
}

/** Makes reads and writes of this open file wait (clears O_NONBLOCK). @throws KernelError 'system' */
export function setBlocking(fd: number): void {
  expect('set the flags of a file descriptor', libc.fcntl(fd, F_SETFL, statusFlags(fd) & ~O_NONBLOCK));
}

/** Makes reads and writes of this open file answer EAGAIN instead of waiting. @throws KernelError 'system' */
export function setNonBlocking(fd: number): void {
  expect('set the flags of a file descriptor', libc.fcntl(fd, F_SETFL, statusFlags(fd) | O_NONBLOCK));
}

/** fallocate(2) with PUNCH_HOLE, ZERO_RANGE, RESERVE or 0. Answers 0 or −errno (EOPNOTSUPP where the file system cannot). */
export function fallocate(fd: number, mode: number, offsetBytes: number, lengthBytes: number): number {
  let result = -EINTR;
  for (let i = 0; i < interruptionsMax && result === -EINTR; i += 1) {
    result = libc.fallocate(fd, mode, offsetBytes, lengthBytes);
  }
  return result;
}

/** What `seek` looks for. */
export const NEXT_DATA = SEEK_DATA;
export const NEXT_HOLE = SEEK_HOLE;
export const END_OF_FILE = SEEK_END;

/**
 * lseek(2): answers where from `offsetBytes` on the next data or hole begins (there is a hole at the end of every file),
 * or where the file ends, or −errno: ENXIO when nothing of the kind follows, EINVAL where it cannot be told. It moves the
 * offset of the open file, which means nothing to reads and writes that name theirs.
 */
export function seek(fd: number, offsetBytes: number, what: number): number {
  return libc.lseek(fd, offsetBytes, what);
}

/** Has the kernel begin to read a range into the page cache; it takes as much as its readahead does. Answers 0 or −errno. */
export function adviseWillNeed(fd: number, offsetBytes: number, lengthBytes: number): number {
  return libc.posixFadvise(fd, offsetBytes, lengthBytes, POSIX_FADV_WILLNEED);
}

/**
 * Takes a shared (read) OFD lock on one byte of a file: it belongs to the open file and goes when the last fd of it is
 * closed. Answers false when somebody else holds the byte exclusively. `fd` must be readable.
 *
 * @throws KernelError 'system' where the file system has no locks
 */
export function lockByteRead(fd: number, offsetBytes: number): boolean {
  return lockByte(fd, F_RDLCK, offsetBytes);
}

/** The same, exclusive: answers false when somebody else has any lock on the byte. `fd` must be writable. */
export function lockByteWrite(fd: number, offsetBytes: number): boolean {
  return lockByte(fd, F_WRLCK, offsetBytes);
}

/** Says whether another open file has a lock, shared or not, on this byte. Takes none. @throws KernelError 'system' */
export function probeByteLock(fd: number, offsetBytes: number): boolean {
  const lock = byteLock(F_WRLCK, offsetBytes);
  expect('look for locks on a file', libc.fcntlLock(fd, F_OFD_GETLK, lock));
  return new DataView(lock.buffer).getInt16(STRUCT_FLOCK.l_type, true) !== F_UNLCK;
}

/** Ends the process with `status`, without waiting for any thread and without running anything. */
export function exitNow(status: number): never {
  libc.exit(status);
  throw new KernelError('system', 'the process did not end');
}

function lockByte(fd: number, type: number, offsetBytes: number): boolean {
  const result = libc.fcntlLock(fd, F_OFD_SETLK, byteLock(type, offsetBytes));
  if (result === -EAGAIN || result === -EACCES) return false;
  expect('lock a byte of a file', result);
  return true;
}

function byteLock(type: number, offsetBytes: number): Uint8Array<ArrayBuffer> {
  invariant(Number.isSafeInteger(offsetBytes) && offsetBytes >= 0, 'a lock is taken on a byte of a file');
  const lock = new Uint8Array(STRUCT_FLOCK.sizeof);
  const view = new DataView(lock.buffer);
  view.setInt16(STRUCT_FLOCK.l_type, type, true);
  view.setInt16(STRUCT_FLOCK.l_whence, SEEK_SET, true);
  view.setBigInt64(STRUCT_FLOCK.l_start, BigInt(offsetBytes), true);
  view.setBigInt64(STRUCT_FLOCK.l_len, 1n, true);
  return lock;
}

function statusFlags(fd: number): number {
  return expect('read the flags of a file descriptor', libc.fcntl(fd, F_GETFL, 0));
}

function endSocket(fd: number, how: number): void {
  const result = libc.shutdown(fd, how);
  if (result !== -ENOTCONN) expect('shut a socket down', result);
}
