import { readdirSync, readlinkSync, writeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import type { SleepyCall, ThreadTask, ThreadWord } from './call-thread.js';
import { libc } from './libc.js';
import { CLONE_FILES, SIG_BLOCK, STRUCT_SIGSET_T } from './libc-abi.js';

// A thread for calls that may sleep for as long as a device lives: NBD_DO_IT, or a disconnect, by ioctl or netlink,
// that waits for a full socket.
//
// A signal delivered to a thread in NBD_DO_IT takes the device down (kernel-facts), and the kernel delivers a process's
// signals to any thread that does not block them; so this one blocks them all, and the main thread gets them.
//
// After SIGKILL such a call still waits, deaf, for whoever sends into the full socket; a process's fds are closed by its
// last thread, so the other end of a socketpair would stay open for that, and the two would wait for each other until the
// machine is restarted (seen). So this thread has a table of fds of its own, with that of its call and what libuv needs in it.
const first = workerData as ThreadTask;
const failed = prepare();
/** Of the process: its main thread's fds can be had by it. Below 0 before Linux 5.6: then there is one call. */
const pidfd = failed === undefined ? libc.pidfdOpen(process.pid) : failed;
if (pidfd >= 0) parentPort?.on('message', ({ fd, call }: ThreadTask) => callAndClose(libc.pidfdGetfd(pidfd, fd), call));
if (failed === undefined) callAndClose(first.fd, first.call);
else tell({ result: failed, waits: false });

/** Answers −errno if it fails. */
function prepare(): number | undefined {
  const masked = libc.pthreadSigmask(SIG_BLOCK, new Uint8Array(STRUCT_SIGSET_T.sizeof).fill(0xff));
  if (masked < 0) return masked;
  const unshared = libc.unshare(CLONE_FILES);
  if (unshared < 0) return unshared;
  for (const other of readdirSync('/proc/thread-self/fd').map(Number)) {
    if (other > 2 && other !== first.fd && !isOfLibuv(other)) libc.close(other);
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

/** The call's end is told when its fd is closed here: by then the device is to be held by the main thread alone. */
function callAndClose(fd: number, call: SleepyCall): void {
  if (fd >= 0) tell('begins');
  const result = fd < 0 ? fd : make(fd, call);
  if (fd >= 0) libc.close(fd);
  tell({ result, waits: pidfd >= 0 });
}

function tell(word: ThreadWord): void {
  parentPort?.postMessage(word);
}

function make(fd: number, call: SleepyCall): number {
  if (call.kind === 'ioctl') return libc.ioctl(fd, call.request, call.value);
  try {
    return writeSync(fd, call.bytes);
  } catch (error) {
    return (error as NodeJS.ErrnoException).errno ?? -1; // node:fs has it negative
  }
}
