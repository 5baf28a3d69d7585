import { closeSync } from 'node:fs';
import { type OpenOptions, openAsFormat } from './open-image.js';
import { type CheckResult, type CheckWatch, checkQcow2, repairQcow2 } from './qcow2/check-qcow2.js';
import type { Repair } from './qcow2/refcount-compare.js';

/** For who cannot repair an image. */
const ADVICE = 'without --repair it is only looked at';

export interface CheckOptions extends Pick<OpenOptions, 'format' | 'forceShare'> {
  /** Absent: nothing is changed. */
  readonly repair: Repair | undefined;
}

/**
 * Looks through the tables of an image, and with `repair` makes right what can be. Answers the name of a format that has
 * nothing to check.
 *
 * @throws ImageError where that cannot be done
 */
export function checkImage(path: string, options: CheckOptions, watch: CheckWatch): CheckResult | 'raw' {
  const { repair } = options;
  const { file, format } = openAsFormat(path, { ...options, readOnly: repair === undefined }, ADVICE);
  try {
    if (format === 'raw') return format;
    if (repair === undefined) return checkQcow2(path, file, watch);
    return repairQcow2(path, file, repair, watch);
  } finally {
    closeSync(file.fd);
  }
}
