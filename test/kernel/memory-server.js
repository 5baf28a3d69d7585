// A thread that serves a disk in memory on one socket, and misbehaves as it is told.
import { closeSync, readSync, writeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';

/** @type {{ fd: number, disk: SharedArrayBuffer, manner: 'good' | 'mute' | 'closes' | 'fails writes' | 'never closes' | 'stalls at a write' }} */
const { fd, disk, manner } = workerData;
const bytes = new Uint8Array(disk);
const header = Buffer.alloc(28);

if (manner === 'closes') closeSync(fd);
else if (manner !== 'mute') serve();

function serve() {
  while (fill(header)) {
    const type = header.readUInt16BE(6);
    if (type === 2) parentPort?.postMessage('goodbye');
    if (type === 2 && manner === 'never closes') return;
    if (type === 2) break;
    if (type === 1 && manner === 'stalls at a write') return;
    const offset = Number(header.readBigUInt64BE(16));
    const length = header.readUInt32BE(24);
    const range = bytes.subarray(offset, offset + length);
    const failed = type === 1 && manner === 'fails writes';
    if (type === 1 && !fill(failed ? Buffer.alloc(length) : range)) break;
    const reply = Buffer.alloc(16);
    reply.writeUInt32BE(0x67446698, 0);
    reply.writeUInt32BE(failed ? 5 : 0, 4);
    header.copy(reply, 8, 8, 16);
    writeAll(reply);
    if (type === 0) writeAll(range);
  }
  closeSync(fd);
}

/** @param {Uint8Array} target */
function fill(target) {
  for (let at = 0; at < target.length; ) {
    const count = readSync(fd, target, at, target.length - at, null);
    if (count === 0) return false;
    at += count;
  }
  return true;
}

/** @param {Uint8Array} source */
function writeAll(source) {
  for (let at = 0; at < source.length; ) at += writeSync(fd, source, at);
}
