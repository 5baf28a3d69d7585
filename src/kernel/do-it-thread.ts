import { readdirSync, readlinkSync, writeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { BEGINS, type SleepyCall, type ThreadTask } from './call-thread.js';
import { libc } from './libc.js';
import { CLONE_FILES, SIG_BLOCK, STRUCT_SIGSET_T } from './libc-abi.js';

// A thread for one call that may sleep for as long as a device lives: NBD_DO_IT, or a disconnect, by ioctl or netlink,
// that waits for a full socket.
//
// A signal delivered to a thread in NBD_DO_IT takes the device down (kernel-facts), and the kernel delivers a process's
// signals to any thread that does not block them; so this one blocks them all, and the main thread gets them.
//
// After SIGKILL such a call still waits, deaf, for whoever sends into the full socket; a process's fds are closed by its
// last thread, so the other end of a socketpair would stay open for that, and the two would wait for each other until the
// machine is restarted (seen). So this thread has a table of fds of its own, with its own and what libuv needs in it.
const { fd, call } = workerData as ThreadTask;
parentPort?.postMessage(prepare() ?? callAndClose());

/** Answers −errno if it fails. */
function prepare(): number | undefined {
  const masked = libc.pthreadSigmask(SIG_BLOCK, new Uint8Array(STRUCT_SIGSET_T.sizeof).fill(0xff));
  if (masked < 0) return masked;
  const unshared = libc.unshare(CLONE_FILES);
  if (unshared < 0) return unshared;
  for (const other of readdirSync('/proc/thread-self/fd').map(Number)) {
    if (other > 2 && other !== fd && !isOfLibuv(other)) libc.close(other);
  }
  return undefined;
}

/** Event loops wake each other through eventfds and wait in epoll: anonymous inodes all. */
function isOfLibuv(other: number): boolean {
  try {
    return readlinkSync(`/proc/thread-self/fd/${other}`).startsWith('anon_inode:');
  } catch {
    return true; // the fd by which the folder was read: closed already
  }
}

/** The thread's end is told before its fds are gone: by then the device is to be held by the main thread alone. */
function callAndClose(): number {
  parentPort?.postMessage(BEGINS);
  const result = make(call);
  libc.close(fd);
  return result;
}

function make(wanted: SleepyCall): number {
  if (wanted.kind === 'ioctl') return libc.ioctl(fd, wanted.request, wanted.value);
  try {
    return writeSync(fd, wanted.bytes);
  } catch (error) {
    return (error as NodeJS.ErrnoException).errno ?? -1; // node:fs has it negative
  }
}
