// A thread that trims a part of an image of the test's and flushes, when it is told to, on a slow disk.
import { parentPort, workerData } from 'node:worker_threads';
import { fileCalls } from '#tsnbd/image/file-calls.js';
import { imageFrom } from '#tsnbd/image/open-image.js';
import { loadLibc } from '#tsnbd/kernel/libc.js';

/** @type {{ handle: import('#tsnbd/image/open-image.js').ImageHandle, go: Int32Array, offsetBytes: number, length: number }} */
const { handle, go, offsetBytes, length } = workerData;
loadLibc();
const sync = (/** @type {number} */ fd) => {
  Atomics.wait(go, 0, 1, 300);
  return fileCalls.sync(fd);
};
const image = imageFrom(handle, { ...fileCalls, sync });
parentPort?.postMessage('ready');
Atomics.wait(go, 0, 0);
const errno = image.trim(offsetBytes, length, false) || image.flush();
image.close();
parentPort?.postMessage(errno);
