// A thread that trims a part of an image of the test's, or writes to it, or neither, and flushes, when it is told to, on a slow disk.
import { parentPort, workerData } from 'node:worker_threads';
import { fileCalls } from '#tsnbd/image/file-calls.js';
import { imageFrom } from '#tsnbd/image/open-image.js';
import { METADATA_LOCK } from '#tsnbd/image/qcow2/memory.js';
import { loadLibc } from '#tsnbd/kernel/libc.js';

/** @type {{ handle: import('#tsnbd/image/open-image.js').ImageHandle, go: Int32Array, writes?: true, offsetBytes: number, length: number }} */
const { handle, go, writes, offsetBytes, length } = workerData;
loadLibc();
const sync = (/** @type {number} */ fd) => {
  Atomics.wait(go, 0, 1, 300);
  if (handle.format === 'qcow2') Atomics.add(go, 1, Atomics.load(handle.memory.fields, METADATA_LOCK) === 0 ? 0 : 1);
  return fileCalls.sync(fd);
};
const image = imageFrom(handle, { ...fileCalls, sync });
parentPort?.postMessage('ready');
Atomics.wait(go, 0, 0);
const change = () => {
  if (writes) return image.write(offsetBytes, length, new Uint8Array(length).fill(8), 0, false);
  return length > 0 ? image.trim(offsetBytes, length, false) : 0;
};
const errno = change() || image.flush();
image.close();
parentPort?.postMessage(errno);
