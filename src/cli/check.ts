import { messageOf } from '../base/message-of.js';
import { checkImage } from '../image/check-image.js';
import { checkAsJson, checkAsText } from './check-report.js';
import { IMAGE_CHECK_STATUSES } from './exit-status.js';
import { Progress } from './progress.js';
import type { CheckAction } from './tsnbd-check-options.js';

/** Looks through an image and tells what is wrong with it, with the statuses of qemu-img check. */
export async function checkAndTell(program: string, { path, options, json }: CheckAction): Promise<number> {
  const progress = new Progress(process.stderr);
  try {
    const result = checkImage(path, options, {
      onFinding: (text) => {
        progress.end();
        process.stderr.write(`${text}\n`);
      },
      onProgress: (done, total) => progress.tell(done, total),
    });
    progress.end();
    if (result === 'raw') {
      process.stderr.write(`${program}: ${path} is raw: there is nothing in it that could be checked\n`);
      return IMAGE_CHECK_STATUSES.unsupported.status;
    }
    process.stdout.write(json ? checkAsJson(path, result) : checkAsText(result));
    const { checkErrors, corruptions, leaks } = result;
    if (checkErrors > 0) return IMAGE_CHECK_STATUSES.failed.status;
    if (corruptions > 0) return IMAGE_CHECK_STATUSES.corrupt.status;
    return leaks > 0 ? IMAGE_CHECK_STATUSES.leaks.status : IMAGE_CHECK_STATUSES.clean.status;
  } catch (error) {
    progress.end();
    process.stderr.write(`${program}: ${messageOf(error)}\n`);
    return IMAGE_CHECK_STATUSES.failed.status;
  }
}
