import { parentPort } from 'node:worker_threads';
import type { Image } from '../image/image.js';
import { type ImageHandle, imageFrom } from '../image/open-image.js';
import { Busyness } from './activity.js';
import type { FlushTask } from './flush-image.js';
import { serveRequests } from './request-loop.js';
import type { WorkerTask } from './workers.js';

// The thread of one connection: waits for it, serves it, says how it ended, ends. Or of one flush.
parentPort?.once('message', (task: WorkerTask | FlushTask) => {
  // What node:fs throws while a socket has nothing to read is caught at once; a stack would be most of what it costs.
  Error.stackTraceLimit = 0;
  if ('flush' in task) return tellOf(task.flush, (image) => image.flush());
  tellOf(task.image, (image) => {
    const busyness = new Busyness(task.activity, task.worker);
    return serveRequests({ mayHalt: false, ...task, image, busyness });
  });
});

function tellOf(handle: ImageHandle, act: (image: Image) => unknown): void {
  const image = imageFrom(handle);
  try {
    parentPort?.postMessage(act(image));
  } finally {
    image.close();
  }
}
