import { stopOnSignals } from '../daemon/signals.js';
import { createImage as makeImage } from '../image/create-image.js';
import { EXIT_STATUSES } from './exit-status.js';
import { formattingLine } from './new-image.js';
import { Progress } from './progress.js';
import type { CreateAction } from './tsnbd-create-options.js';

/** Makes an image, and says so in qemu-img's words, which scripts read. */
export async function createImage(program: string, action: CreateAction): Promise<number> {
  const { path, image, quiet } = action;
  const progress = new Progress(process.stderr);
  try {
    await makeImage(action, {
      stop: stopOnSignals(),
      onBegin: (sizeBytes, notices) => {
        for (const notice of notices) process.stderr.write(`${program}: ${notice}\n`);
        if (!quiet) process.stdout.write(formattingLine(path, image, sizeBytes));
      },
      onProgress: (done, total) => {
        if (!quiet) progress.tell(done, total);
      },
    });
  } finally {
    progress.end();
  }
  return EXIT_STATUSES.done.status;
}
