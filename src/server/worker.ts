import { parentPort } from 'node:worker_threads';
import { imageFrom } from '../image/open-image.js';
import { Busyness } from './activity.js';
import { serveRequests } from './request-loop.js';
import type { WorkerTask } from './workers.js';

// The thread of one connection: waits for it, serves it, says how it ended, ends.
parentPort?.once('message', (task: WorkerTask) => {
  // What node:fs throws while a socket has nothing to read is caught at once; a stack would be most of what it costs.
  Error.stackTraceLimit = 0;
  const image = imageFrom(task.image);
  try {
    const busyness = new Busyness(task.activity, task.worker);
    parentPort?.postMessage(serveRequests({ ...task, image, busyness }));
  } finally {
    image.close();
  }
});
