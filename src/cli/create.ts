import { stopOnSignals } from '../daemon/signals.js';
import { createRawImage } from '../image/create-image.js';
import { EXIT_STATUSES } from './exit-status.js';
import { Progress } from './progress.js';
import type { CreateAction } from './tsnbd-create-options.js';

/** Makes an image, and says so in qemu-img's words, which scripts read. */
export async function createImage({ path, sizeBytes, format, settings, quiet }: CreateAction): Promise<number> {
  const given = Object.entries(settings).map(([name, value]) => ` ${name}=${value}`);
  if (!quiet) process.stdout.write(`Formatting '${path}', fmt=${format} size=${sizeBytes}${given.join('')}\n`);
  const progress = new Progress(process.stderr);
  const onProgress = (done: number, total: number) => {
    if (!quiet) progress.tell(done, total);
  };
  try {
    await createRawImage(path, sizeBytes, settings.preallocation ?? 'off', { stop: stopOnSignals(), onProgress });
  } finally {
    progress.end();
  }
  return EXIT_STATUSES.done.status;
}
