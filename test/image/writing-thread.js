// A thread that writes to an image of the test's when it is told to, and tells the errno.
import { parentPort, workerData } from 'node:worker_threads';
import { imageFrom } from '#tsnbd/image/open-image.js';
import { loadLibc } from '#tsnbd/kernel/libc.js';

/** Fields of `signs`. */
const GO = 0;
const DONE = 1;

/** @type {{ handle: import('#tsnbd/image/open-image.js').ImageHandle, signs: Int32Array, offsetBytes: number, bytes: Uint8Array }} */
const { handle, signs, offsetBytes, bytes } = workerData;
loadLibc();
const image = imageFrom(handle);
parentPort?.postMessage('ready');
Atomics.wait(signs, GO, 0);
const errno = image.write(offsetBytes, bytes.length, bytes, 0, false);
Atomics.store(signs, DONE, 1);
Atomics.notify(signs, DONE);
image.close();
parentPort?.postMessage(errno);
