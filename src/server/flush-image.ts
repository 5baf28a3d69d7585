import type { ImageHandle } from '../image/open-image.js';
import { ServerError } from './errors.js';
import { startWorker } from './spare-workers.js';

/** What a worker is told that does no more. */
export interface FlushTask {
  readonly flush: ImageHandle;
  readonly isLast: true;
}

/**
 * Has a worker bring to stable storage what others have written, while they go on. Answers 0 or a positive errno.
 *
 * @throws ServerError 'died'
 */
export function flushImage(image: ImageHandle): Promise<number> {
  const worker = startWorker();
  worker.postMessage({ flush: image, isLast: true } satisfies FlushTask);
  return new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', (cause) => reject(new ServerError('died', `the worker broke: ${cause}`, { cause })));
    worker.once('exit', () => reject(new ServerError('died', 'the worker ended without a word')));
  });
}
