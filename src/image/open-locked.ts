import { closeSync } from 'node:fs';
import { inUseError } from './in-use.js';
import { type LockConflict, type LockPlan, takeLocks } from './lock.js';
import { type OpenFile, openFile } from './open-file.js';

/**
 * Opens what is at `path` and takes the locks that `planOf` wants, which may look at the file first and refuse it. With
 * `force`, what another program forbids is passed over. `advice` as for openFile.
 *
 * @throws ImageError, or KernelError 'system' on a file system without locks
 */
export function openLocked(
  path: string,
  readOnly: boolean,
  planOf: (file: OpenFile) => LockPlan,
  force = false,
  advice?: string,
): OpenFile {
  const file = openFile(path, readOnly, advice);
  let conflict: LockConflict | undefined;
  try {
    conflict = takeLocks(file.fd, planOf(file));
  } catch (error) {
    closeSync(file.fd);
    throw error;
  }
  if (conflict === undefined || force) return file;
  closeSync(file.fd); // our own locks are not to be named below
  throw inUseError(path, file, conflict);
}
