import { parentPort } from 'node:worker_threads';
import type { Image } from '../image/image.js';
import { type ImageHandle, imageFrom } from '../image/open-image.js';
import { Busyness } from './activity.js';
import type { FlushTask } from './flush-image.js';
import { serveRequests } from './request-loop.js';
import type { WorkerTask } from './workers.js';

// The thread of one connection at a time: waits for it, serves it, says how it ended, and waits for the next or ends. Or of one flush.
parentPort?.on('message', (task: WorkerTask | FlushTask) => {
  // What node:fs throws while a socket has nothing to read is caught at once; a stack would be most of what it costs.
  Error.stackTraceLimit = 0;
  if ('flush' in task) tellOf(task.flush, (image) => image.flush());
  else
    tellOf(task.image, (image) => {
      const busyness = new Busyness(task.activity, task.worker);
      return serveRequests({ ...task, image, busyness });
    });
  if (task.isLast) parentPort?.close();
});

function tellOf(handle: ImageHandle, act: (image: Image) => unknown): void {
  const image = imageFrom(handle);
  let end: unknown;
  try {
    end = act(image);
  } finally {
    image.close();
  }
  parentPort?.postMessage(end);
}
