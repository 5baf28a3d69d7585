import { createRawImage } from '../image/create-image.js';
import { EXIT_STATUSES } from './exit-status.js';
import type { CreateAction } from './tsnbd-create-options.js';

/** Makes an image, and says so in qemu-img's words, which scripts read. */
export function createImage({ path, sizeBytes, format, settings, quiet }: CreateAction): number {
  const given = Object.entries(settings).map(([name, value]) => ` ${name}=${value}`);
  if (!quiet) process.stdout.write(`Formatting '${path}', fmt=${format} size=${sizeBytes}${given.join('')}\n`);
  createRawImage(path, sizeBytes, settings.preallocation ?? 'off');
  return EXIT_STATUSES.done.status;
}
