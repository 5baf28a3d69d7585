import { basename } from 'node:path';
import { listFolder, readLink, readText } from './kernel-files.js';
import { type Mount, parseBlockFileSystems, parseMountinfo } from './proc-tables.js';

// `root` is where /proc, /sys and /dev are looked for: tests put trees of their own there.

/** A device of ours, or a partition of it, that a mount is of. */
export interface MountedDevice {
  /** The whole device: 'nbd0'. */
  readonly device: string;
  /** What is mounted: 'nbd0' or 'nbd0p1'. */
  readonly node: string;
}

/**
 * What is seen at a folder: of several mounts there, the last. In the mount namespace of this process, or in the one that a
 * link of /proc or a file of nsfs leads to.
 *
 * @throws Error if no process is in that namespace, so that nobody can look
 */
export function mountAt(folder: string, namespace?: string, root = ''): Mount | undefined {
  return mountsOf(namespace, root).findLast(({ mountPoint }) => mountPoint === folder);
}

/** The nbd device that a mount is of, if it is one. */
export function mountedDevice(mount: Mount, root = ''): MountedDevice | undefined {
  const { deviceNumber, fileSystem, source } = mount;
  const linked = readLink(`${root}/sys/dev/block/${deviceNumber}`);
  const isMadeUp = deviceNumber.startsWith('0:');
  // btrfs makes a number up: the source tells, where the kernel has checked that it is a device.
  const isOnBlocks = isMadeUp && parseBlockFileSystems(readText(`${root}/proc/filesystems`) ?? '').has(fileSystem);
  const node = linked !== undefined ? basename(linked) : isOnBlocks ? source.replace(/^\/dev\//, '') : '';
  const device = /^(nbd[0-9]+)(p[0-9]+)?$/.exec(node)?.[1];
  return device === undefined ? undefined : { device, node };
}

function mountsOf(namespace: string | undefined, root: string): readonly Mount[] {
  if (namespace === undefined) return parseMountinfo(readText(`${root}/proc/self/mountinfo`) ?? '');
  const wanted = readLink(namespace);
  const pid = listFolder(`${root}/proc`).find(
    (entry) => /^[0-9]+$/.test(entry) && wanted !== undefined && readLink(`${root}/proc/${entry}/ns/mnt`) === wanted,
  );
  if (pid === undefined) throw new Error(`nobody is in the mount namespace ${namespace}`);
  return parseMountinfo(readText(`${root}/proc/${pid}/mountinfo`) ?? '');
}
