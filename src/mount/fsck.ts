import { interrupted, MountError } from './errors.js';
import { checkerOf, checkFileSystem, complaint } from './programs.js';

/** 'auto' checks where there is a program for the file system, 'yes' fails where there is none. */
export type FsckChoice = 'no' | 'auto' | 'yes';

/** fsck(8): 1 is repaired, 2 asks to restart a machine whose root it was. */
const REPAIRED = 1;
const LEFT_UNCORRECTED = 4;

/**
 * Checks a file system that nothing has mounted; one that is mounted read-only is only looked at.
 *
 * @throws MountError 'failed', 'interrupted'
 */
export async function checkBeforeMount(
  choice: FsckChoice,
  fileSystem: string,
  node: string,
  readOnly: boolean,
  stop: AbortSignal,
): Promise<'checked' | 'repaired' | 'passed over'> {
  if (choice === 'no' || (choice === 'auto' && readOnly)) return 'passed over';
  const checker = checkerOf(fileSystem);
  if (checker === undefined) {
    if (choice === 'auto') return 'passed over';
    throw new MountError('failed', `there is no fsck.${fileSystem} to check ${node} with`);
  }
  const end = await checkFileSystem(checker, node, !readOnly, stop);
  if (end.status >= 0 && end.status < LEFT_UNCORRECTED) return end.status < REPAIRED ? 'checked' : 'repaired';
  if (stop.aborted) throw interrupted();
  const why = end.status === LEFT_UNCORRECTED ? 'it has errors that need a decision' : complaint(end, node);
  throw new MountError(
    'failed',
    `fsck.${fileSystem} does not pass ${node}: ${why}; attach it without mounting it, and check it by hand`,
  );
}
