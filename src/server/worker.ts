import { parentPort, workerData } from 'node:worker_threads';
import { imageFrom } from '../image/open-image.js';
import { transmissionFlags } from '../protocol/request-rules.js';
import { serveRequests } from './request-loop.js';
import type { WorkerTask } from './workers.js';

// The thread of one connection: serves it, says how it ended, ends.
const task = workerData as WorkerTask;
const image = imageFrom(task.image);
try {
  const { sizeBytes, readOnly } = image;
  const flags = transmissionFlags({ readOnly, multiConn: true, rotational: false, fastZero: false, trim: true });
  const { minimumBlockBytes } = task;
  const rules = { sizeBytes, readOnly, minimumBlockBytes, replyStyle: 'simple', statusContexts: 0, flags } as const;
  parentPort?.postMessage(serveRequests({ ...task, image, rules }));
} finally {
  image.close();
}
