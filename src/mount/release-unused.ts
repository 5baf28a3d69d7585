import type { OnAttachEvent } from '../attach/attach-event.js';
import { detachUnused } from '../attach/detach-unused.js';
import { recordedDevices } from '../attach/devices.js';
import { deviceUsers } from '../kernel/proc.js';
import { takeLock } from './locks.js';
import { sourceName } from './source.js';

/** What still writes keeps its device; the next call looks again. */
const CLAIMED_LIMIT_MS = 0;

/** Detaches what was attached for mounts, and was left by an unmount that went past us, or by a mount that was killed. */
export async function releaseUnused(onEvent: OnAttachEvent): Promise<void> {
  for (const { device, record } of recordedDevices()) {
    if (record.forMounts !== true || deviceUsers(device).length > 0) continue;
    const unlock = await takeLock({ source: sourceName(record) }, 0);
    if (unlock === undefined) continue; // it is being mounted just now
    try {
      // It may have been mounted meanwhile.
      if (deviceUsers(device).length === 0) {
        await detachUnused(device, { claimedLimitMs: CLAIMED_LIMIT_MS, force: false, onNotice: () => {} });
      }
    } catch (error) {
      onEvent({
        kind: 'notice',
        text: `/dev/${device} is not used any more and stays: ${String((error as Error).message)}`,
      });
    } finally {
      unlock();
    }
  }
}
