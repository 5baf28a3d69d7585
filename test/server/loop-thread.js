// A thread that runs the request loop over an image in memory, whose faults and counts the test shares.
import { parentPort, workerData } from 'node:worker_threads';
import { IS_FULL, ZERO_FAST } from '#tsnbd/image/image.js';
import { announcedFlags, transmissionFlags } from '#tsnbd/protocol/request-rules.js';
import { Busyness, newActivity } from '#tsnbd/server/activity.js';
import { serveRequests } from '#tsnbd/server/request-loop.js';

/** @type {import('./loop-harness.js').LoopThreadData} */
const { socketFd, sizeBytes, memory, readOnly, minimumBlockBytes, received, stop, faults, counts, writeErrors } =
  workerData;
/** @type {import('./loop-harness.js').LoopThreadData} */
const { replyStyle, contexts, sparse, badBlockBytes, slowZero, flushFd, begunFd, slowFds, bellFd } = workerData;

/** @param {import('./loop-harness.js').Call} call */
const enter = (call) => {
  Atomics.add(counts, call, 1);
  // A fault that is -1 holds the call up until the test sets another.
  if (Atomics.load(faults, call) === -1) Atomics.add(counts, HELD, 1);
  while (Atomics.load(faults, call) === -1) Atomics.wait(faults, call, -1);
  return Atomics.load(faults, call);
};
const READ = 0;
const WRITE = 1;
const ZERO = 2;
const TRIM = 3;
const FLUSH = 4;
const DURABLE = 5;
const HELD = 6;
const PLACES = 7;
const WITHIN_BLOCK = 8;
const STATUS = 9;
const CACHE = 10;
const DONE = 6;
const FAILED = 7;
const BLOCK_BYTES = 4096;
const EIO = 5;
const EOPNOTSUPP = 95;

/** @param {number} at */
const isHole = (at) => sparse && memory.subarray(at, at + BLOCK_BYTES).every((byte) => byte === 0);

/** Begun writes by ticket, of which each is given once. @type {Map<number, { offset: number, bytes: Uint8Array }>} */
const begun = new Map();
let tickets = 0;

/** @type {import('#tsnbd/image/image.js').Image} */
const image = {
  sizeBytes,
  readOnly,
  read(offset, length, target, at) {
    const errno = enter(READ);
    target.set(memory.subarray(offset, offset + length), at);
    const isBad = badBlockBytes >= 0 && offset < badBlockBytes + BLOCK_BYTES && badBlockBytes < offset + length;
    return isBad ? EIO : errno;
  },
  write(offset, length, source, at, durable) {
    if (durable) enter(DURABLE);
    if (offset % BLOCK_BYTES !== 0) Atomics.add(counts, WITHIN_BLOCK, 1);
    const errno = enter(WRITE);
    if (errno === 0) memory.set(source.subarray(at, at + length), offset);
    return errno;
  },
  zero(offset, length, ways, durable) {
    if (slowZero && (ways & ZERO_FAST) !== 0) return EOPNOTSUPP;
    if (durable) enter(DURABLE);
    const errno = enter(ZERO);
    if (errno === 0) memory.fill(0, offset, offset + length);
    return errno;
  },
  trim(_offset, _length, durable) {
    if (durable) enter(DURABLE);
    return enter(TRIM);
  },
  status(offset, length, extent) {
    const errno = enter(STATUS);
    if (errno !== 0) return errno;
    const hole = isHole(offset);
    let end = offset - (offset % BLOCK_BYTES);
    do end += BLOCK_BYTES;
    while (end < offset + length && isHole(end) === hole);
    Object.assign(extent, { lengthBytes: Math.min(end - offset, length), hole, zero: hole });
    return 0;
  },
  cache: () => enter(CACHE),
  mayHaveHoles: sparse,
  findPlace(offset, _length, place) {
    Object.assign(place, { fd: slowFds[offset / BLOCK_BYTES] ?? -1, blockBytes: 1, offsetBytes: 0 });
    if (place.fd >= 0) Atomics.add(counts, PLACES, 1);
    return place.fd >= 0;
  },
  letGoPlaces: () => void Atomics.store(counts, PLACES, 0),
  relax() {},
  beginsWrites: begunFd >= 0,
  beginWrite(offset, length, source, at) {
    if (begun.size === 4) return IS_FULL;
    begun.set(tickets, { offset, bytes: source.slice(at, at + length) });
    return tickets++;
  },
  begunWritesFd: begunFd,
  takeWrites(waitFor, onWritten) {
    const left = Math.max(0, begun.size - waitFor);
    for (;;) {
      const done = Atomics.load(faults, DONE);
      for (const [ticket, { offset, bytes }] of [...begun]) {
        if ((done & (1 << ticket)) === 0) continue;
        const failed = (Atomics.load(faults, FAILED) & (1 << ticket)) !== 0;
        if (!failed) memory.set(bytes, offset);
        begun.delete(ticket);
        onWritten(ticket, failed ? EIO : 0);
      }
      if (begun.size <= left) return;
      Atomics.wait(faults, DONE, done);
    }
  },
  isDirect: slowFds.length > 0, // so every read is one of a disk
  readIntoPipe: () => 0,
  lendsPages: false,
  takeBackPages() {},
  flush: () => enter(FLUSH),
  beginFlush: () => flushFd >= 0,
  begunFlushFd: flushFd,
  get isFlushDone() {
    return Atomics.load(faults, FLUSH) !== -1;
  },
  finishFlush: () => enter(FLUSH),
  close() {},
};
const busyness = new Busyness(newActivity(1), 0);
const flags = announcedFlags(
  transmissionFlags({ readOnly, multiConn: true, rotational: false, fastZero: true, trim: true }),
  replyStyle,
);
/** @type {import('#tsnbd/protocol/request-rules.js').ExportRules} */
const rules = { sizeBytes, readOnly, minimumBlockBytes, replyStyle, statusContexts: contexts.length, flags };
parentPort?.postMessage(
  serveRequests({ socketFd, image, rules, contexts, received, stop, bellFd, busyness, writeErrors }),
);
