import { closeSync } from 'node:fs';
import { inUseError } from './in-use.js';
import { type LockConflict, type LockPlan, takeLocks } from './lock.js';
import { type GivenFiles, type OpenFile, openFile } from './open-file.js';

/**
 * Opens what is at `path` and takes the locks that `planOf` wants, which may look at the file first and refuse it. With
 * `force`, what another program forbids is passed over. A file that was `given` has its locks already. `advice` and
 * `mayBeEmpty` as for openFile.
 *
 * @throws ImageError, or KernelError 'system' on a file system without locks
 */
export function openLocked(
  path: string,
  readOnly: boolean,
  planOf: (file: OpenFile) => LockPlan,
  options: {
    readonly force?: boolean;
    readonly given?: GivenFiles | undefined;
    readonly advice?: string | undefined;
    readonly mayBeEmpty?: boolean | undefined;
  } = {},
): OpenFile {
  const { force = false, given } = options;
  const file = openFile(path, readOnly, options);
  let conflict: LockConflict | undefined;
  try {
    const plan = planOf(file);
    conflict = given === undefined ? takeLocks(file.fd, plan) : undefined;
  } catch (error) {
    closeSync(file.fd);
    throw error;
  }
  if (conflict === undefined || force) return file;
  closeSync(file.fd); // our own locks are not to be named below
  throw inUseError(path, file, conflict);
}
