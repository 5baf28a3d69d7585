import { parentPort, workerData } from 'node:worker_threads';
import { libc } from './libc.js';
import { SIG_BLOCK, STRUCT_SIGSET_T } from './libc-abi.js';

// A thread for one ioctl that may sleep for as long as a device lives: NBD_DO_IT, or an NBD_DISCONNECT that waits for a
// full socket. A signal delivered to a thread in NBD_DO_IT takes the device down (kernel-facts), and the kernel delivers a
// process's signals to any thread that does not block them; so this one blocks them all, and the main thread gets them.
const { fd, request } = workerData as { readonly fd: number; readonly request: number };
const masked = libc.pthreadSigmask(SIG_BLOCK, new Uint8Array(STRUCT_SIGSET_T.sizeof).fill(0xff));
parentPort?.postMessage(masked < 0 ? masked : libc.ioctl(fd, request, 0));
