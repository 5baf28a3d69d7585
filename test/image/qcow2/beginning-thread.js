// A thread that begins a write to an image of the test's, and reads, before it looks after that write, when it is told to.
import { parentPort, workerData } from 'node:worker_threads';
import { imageFrom } from '#tsnbd/image/open-image.js';
import { loadLibc } from '#tsnbd/kernel/libc.js';

/** @type {{ handle: import('#tsnbd/image/open-image.js').ImageHandle, go: Int32Array, blockBytes: number, readBytes: number }} */
const { handle, go, blockBytes, readBytes } = workerData;
loadLibc();
const image = imageFrom(handle);
const ticket = image.beginWrite(0, blockBytes, new Uint8Array(blockBytes).fill(7), 0);
parentPort?.postMessage(ticket);
Atomics.wait(go, 0, 0);
const target = new Uint8Array(1);
const errno = image.read(readBytes, 1, target, 0);
/** @type {(readonly [number, number])[]} */
const told = [];
image.takeWrites(1, (...one) => told.push(one));
image.close();
parentPort?.postMessage({ errno, byte: target[0], told });
