import { existsSync } from 'node:fs';
import { rescanPartitions } from '../kernel/device-child.js';
import { deviceState, waitFor } from '../kernel/sysfs.js';

/** Partitions are read from the server: this bounds a server that stalls then, and a udev that does not make the nodes. */
const SCAN_LIMIT_MS = 10_000;
const NODES_LIMIT_MS = 5_000;

/**
 * Returns when the device has its size, the kernel has read its partition table, and each partition has its node in
 * /dev; answers the partitions' names. nbd-client and qemu-nbd return earlier, and scripts then loop for nbd0p1.
 */
export async function waitUntilUsable(device: string, sizeBytes: number): Promise<readonly string[]> {
  await waitFor(`${device} to have its size`, NODES_LIMIT_MS, () => deviceState(device).sizeBytes === sizeBytes);
  await rescanPartitions(device, SCAN_LIMIT_MS);
  const { partitions } = deviceState(device);
  for (const partition of partitions) {
    await waitFor(`/dev/${partition}`, NODES_LIMIT_MS, () => existsSync(`/dev/${partition}`));
  }
  return partitions;
}
