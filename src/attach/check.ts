import { readState } from '../daemon/state-file.js';
import { deviceState } from '../kernel/sysfs.js';

/** The process behind a device that is up: ours by its state file, another's as the kernel tells it; absent when free. */
export function attachedPid(device: string): number | undefined {
  const { pid } = deviceState(device);
  return pid === undefined ? undefined : (readState(device)?.pid ?? pid);
}
