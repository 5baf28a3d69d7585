// A thread that runs the request loop over an image in memory, whose faults and counts the test shares.
import { parentPort, workerData } from 'node:worker_threads';
import { transmissionFlags } from '#tsnbd/protocol/request-rules.js';
import { Busyness, newActivity } from '#tsnbd/server/activity.js';
import { serveRequests } from '#tsnbd/server/request-loop.js';

/** @type {import('./loop-harness.js').LoopThreadData} */
const { socketFd, sizeBytes, memory, readOnly, minimumBlockBytes, received, stop, faults, counts } = workerData;

/** @param {import('./loop-harness.js').Call} call */
const enter = (call) => {
  Atomics.add(counts, call, 1);
  // A fault that is -1 holds the call up until the test sets another.
  while (Atomics.load(faults, call) === -1) Atomics.wait(faults, call, -1);
  return Atomics.load(faults, call);
};
const READ = 0;
const WRITE = 1;
const ZERO = 2;
const TRIM = 3;
const FLUSH = 4;
const DURABLE = 5;

/** @type {import('#tsnbd/image/image.js').Image} */
const image = {
  sizeBytes,
  readOnly,
  read(offset, length, target, at) {
    const errno = enter(READ);
    target.set(memory.subarray(offset, offset + length), at);
    return errno;
  },
  write(offset, length, source, at, durable) {
    if (durable) enter(DURABLE);
    const errno = enter(WRITE);
    if (errno === 0) memory.set(source.subarray(at, at + length), offset);
    return errno;
  },
  zero(offset, length, _ways, durable) {
    if (durable) enter(DURABLE);
    const errno = enter(ZERO);
    if (errno === 0) memory.fill(0, offset, offset + length);
    return errno;
  },
  trim(_offset, _length, durable) {
    if (durable) enter(DURABLE);
    return enter(TRIM);
  },
  status(_offset, length, extent) {
    Object.assign(extent, { lengthBytes: length, hole: false, zero: false });
    return 0;
  },
  cache: () => 0,
  mayHaveHoles: false,
  expectRead: () => true,
  startExpected: () => true,
  relax() {},
  readIntoPipe: () => 0,
  flush: () => enter(FLUSH),
  close() {},
};
const busyness = new Busyness(newActivity(1), 0);
const flags = transmissionFlags({ readOnly, multiConn: true, rotational: false, fastZero: false, trim: true });
/** @type {import('#tsnbd/protocol/request-rules.js').ExportRules} */
const rules = { sizeBytes, readOnly, minimumBlockBytes, replyStyle: 'simple', statusContexts: 0, flags };
parentPort?.postMessage(serveRequests({ socketFd, image, rules, contexts: [], received, stop, busyness }));
