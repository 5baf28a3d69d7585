import { opensOfDevices } from '../kernel/sysfs.js';
import { disconnectInProcess } from './disconnect.js';
import { AttachError } from './errors.js';

/** A device that cannot be opened in this time is none that more can be told of. */
const CLAIM_LIMIT_MS = 5_000;

/**
 * Refuses a device that somebody has for himself although nothing tells of it: a file system that was unmounted lazily, or is
 * mounted where no process is seen, or a program. An open with O_EXCL tells, which may hang: a process of its own makes it,
 * unless nobody has any nbd device open but this process, `ownOpens` times.
 *
 * @throws AttachError 'busy'
 */
export async function refuseClaimed(device: string, ownOpens: number): Promise<void> {
  if (opensOfDevices() === ownOpens) return;
  try {
    await disconnectInProcess({ device, how: 'claim' }, CLAIM_LIMIT_MS);
  } catch (error) {
    if ((error as { code?: unknown }).code !== 'busy') return; // it says nothing of others
    throw new AttachError(
      'busy',
      `/dev/${device} is in use by what shows nowhere: a program, or a file system that was unmounted lazily or is mounted in another namespace (--force detaches it all the same)`,
    );
  }
}
