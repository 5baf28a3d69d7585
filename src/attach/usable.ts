import { existsSync } from 'node:fs';
import { rescanPartitions, rescanPartitionsHere } from '../kernel/device-child.js';
import { deviceState, waitFor } from '../kernel/sysfs.js';
import { makeNode, type UdevView, udevRuns, waitForUdev } from '../kernel/udev.js';

/** Partitions are read from the server: this bounds a server that stalls then, and a udev that does not make the nodes. */
const SCAN_LIMIT_MS = 10_000;
const NODES_LIMIT_MS = 5_000;

export interface NodeWatch {
  /** This process is not to stay behind the device, so it may open it. */
  readonly isLeft: boolean;
  /** What udev had done before the device was set up. */
  readonly udev: UdevView;
  /** Called with the name of a node that was made. */
  readonly onMade: (name: string) => void;
  /** Called where all is there, but udev is not done with it. */
  readonly onLate: (text: string) => void;
}

/**
 * Returns when the device has its size, the kernel has read its partition table, each partition has its node in /dev, and
 * udev, where it runs, has looked at all of them; answers the partitions' names. nbd-client and qemu-nbd return earlier, and
 * scripts then loop for nbd0p1. A node that nobody makes is made.
 */
export async function waitUntilUsable(
  device: string,
  sizeBytes: number,
  { isLeft, udev, onMade, onLate }: NodeWatch,
): Promise<readonly string[]> {
  await waitFor(`${device} to have its size`, NODES_LIMIT_MS, () => deviceState(device).sizeBytes === sizeBytes);
  await requireNode(device, onMade);
  await (isLeft ? rescanPartitionsHere : rescanPartitions)(device, SCAN_LIMIT_MS);
  const { partitions } = deviceState(device);
  for (const partition of partitions) await requireNode(partition, onMade);
  if (!(await waitForUdev([device, ...partitions], udev, NODES_LIMIT_MS))) {
    onLate(
      `udev is not done with /dev/${device} after ${NODES_LIMIT_MS / 1_000} s; what it makes of it, as in /dev/disk, comes later`,
    );
  }
  return partitions;
}

/** The kernel makes nodes in a devtmpfs at once, and udev moments later; in a container nobody does. */
async function requireNode(name: string, onMade: (name: string) => void): Promise<void> {
  const isThere = () => existsSync(`/dev/${name}`);
  if (udevRuns()) return waitFor(`/dev/${name}`, NODES_LIMIT_MS, isThere);
  if (isThere()) return;
  await makeNode(name);
  onMade(name);
}
