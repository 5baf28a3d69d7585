import { statSync } from 'node:fs';
import { listFolder, readLink, readText } from './kernel-files.js';
import {
  deviceNumberText,
  isStopped,
  isZombie,
  type Mount,
  parseBlockFileSystems,
  parseMountinfo,
  parseStartTime,
  parseSwaps,
} from './proc-tables.js';
import { deviceNumber, deviceState } from './sysfs.js';

/** What keeps a device or a partition (`device`, 'nbd0p1') busy. */
export type DeviceUser =
  | { readonly kind: 'mount'; readonly device: string; readonly mountPoint: string; readonly fileSystem: string }
  | { readonly kind: 'swap'; readonly device: string }
  /** A device above it: device mapper, md, loop; or a file system of several devices. */
  | { readonly kind: 'holder'; readonly device: string; readonly holder: string };

/** A process that has a file open. */
export interface FileUser {
  readonly pid: number;
  /** As the kernel knows it: 15 bytes at most, chosen by the process. */
  readonly command: string;
  /** It holds a lock of some kind through this file. */
  readonly holdsLock: boolean;
}

// `root` is where /proc, /sys and /dev are looked for: tests put trees of their own there.

/**
 * Everything that uses a device or one of its partitions: mounts of every mount namespace that can be seen, swap, and
 * the devices above. Opens no device. A mere open fd of a program is not seen.
 */
export function deviceUsers(name: string, root = ''): readonly DeviceUser[] {
  const devices = [name, ...deviceState(name, root).partitions];
  const names = namesByNumber(devices, root);
  const mounts = mountUsers(names, root);

  const swaps = parseSwaps(textOf(`${root}/proc/swaps`)).flatMap((path): DeviceUser[] => {
    const device = names.get(blockDeviceAt(root, path));
    return device === undefined ? [] : [{ kind: 'swap', device }];
  });
  const loops = listFolder(`${root}/sys/block`).flatMap((loop): DeviceUser[] => {
    const device = names.get(blockDeviceAt(root, textOf(`${root}/sys/block/${loop}/loop/backing_file`).trimEnd()));
    return device === undefined ? [] : [{ kind: 'holder', device, holder: loop }];
  });
  const holders = devices.flatMap((device) =>
    listFolder(`${root}/sys/block/${device === name ? name : `${name}/${device}`}/holders`).map(
      (holder): DeviceUser => ({ kind: 'holder', device, holder: mapperName(holder, root) }),
    ),
  );
  const mounted = new Set(mounts.map(({ device }) => device));
  const members = btrfsMembers(devices, root).filter(({ device }) => !mounted.has(device));
  return [...mounts, ...members, ...swaps, ...holders, ...loops];
}

/** A device above another: its name in /sys, what device mapper calls it, and the names of all that it lies on. */
export interface Holder {
  readonly name: string;
  readonly mapperName: string | undefined;
  readonly lower: readonly string[];
}

/** The device that a 'holder' of deviceUsers is; absent for a file system of several devices. */
export function holderDevice({ holder }: { readonly holder: string }, root = ''): Holder | undefined {
  const [name = ''] = holder.split(' ');
  if (readText(`${root}/sys/block/${name}/dev`) === undefined) return undefined;
  return {
    name,
    mapperName: readText(`${root}/sys/block/${name}/dm/name`)?.trimEnd(),
    lower: listFolder(`${root}/sys/block/${name}/slaves`),
  };
}

/** When a process started, in clock ticks since boot: with the pid it names one process. Absent if there is none, or it ended. */
export function processStartTime(pid: number): number | undefined {
  const stat = textOf(`/proc/${pid}/stat`);
  return isZombie(stat) ? undefined : parseStartTime(stat);
}

export function isStoppedProcess(pid: number): boolean {
  return isStopped(textOf(`/proc/${pid}/stat`));
}

/**
 * The processes that have the file of this device and inode number open (st_dev and st_ino of stat(2)), those with a
 * lock first. Without root only the user's own are seen.
 */
export function processesWithFileOpen(dev: number, ino: number): readonly FileUser[] {
  const users = listFolder('/proc')
    .filter((entry) => /^[0-9]+$/.test(entry))
    .flatMap((entry): FileUser[] => {
      const fds = listFolder(`/proc/${entry}/fd`).filter((fd) => isFile(`/proc/${entry}/fd/${fd}`, dev, ino));
      if (fds.length === 0) return [];
      const holdsLock = fds.some((fd) => textOf(`/proc/${entry}/fdinfo/${fd}`).includes('\nlock:'));
      return [{ pid: Number(entry), command: textOf(`/proc/${entry}/comm`).trimEnd(), holdsLock }];
    });
  return users.sort((a, b) => Number(b.holdsLock) - Number(a.holdsLock));
}

/** The devices by 'MAJOR:MINOR'; one that has just gone has none. */
function namesByNumber(devices: readonly string[], root: string): ReadonlyMap<string, string> {
  return new Map(
    devices.flatMap((device): [string, string][] => {
      const number = deviceNumber(device, root);
      return number === undefined ? [] : [[number, device]];
    }),
  );
}

function mountUsers(names: ReadonlyMap<string, string>, root: string): readonly DeviceUser[] {
  const blockFileSystems = parseBlockFileSystems(textOf(`${root}/proc/filesystems`));
  const users = new Map<string, DeviceUser>();
  for (const mount of allMounts(root)) {
    const { mountPoint, fileSystem, source } = mount;
    let device = names.get(mount.deviceNumber);
    // Made-up numbers: the source says which device. Only where the kernel checked that it is one: any user can give a
    // tmpfs of a namespace of his own the source /dev/nbd0.
    if (device === undefined && mount.deviceNumber.startsWith('0:') && blockFileSystems.has(fileSystem)) {
      device = names.get(blockDeviceAt(root, source));
    }
    if (device !== undefined) users.set(`${device} ${mountPoint}`, { kind: 'mount', device, mountPoint, fileSystem });
  }
  return [...users.values()];
}

/** Where something is mounted in our own namespace, in the order in which it was. */
export function mountPoints(root = ''): readonly string[] {
  return parseMountinfo(textOf(`${root}/proc/self/mountinfo`)).map(({ mountPoint }) => mountPoint);
}

/** The mounts of our own namespace, then those of every other: a container may have the device mounted too. */
function allMounts(root: string): readonly Mount[] {
  const seen = new Set<string>();
  const pids = listFolder(`${root}/proc`).filter((entry) => /^[0-9]+$/.test(entry));
  return ['self', ...pids].flatMap((pid) => {
    const namespace = readLink(`${root}/proc/${pid}/ns/mnt`);
    if (namespace === undefined || seen.has(namespace)) return [];
    seen.add(namespace);
    return parseMountinfo(textOf(`${root}/proc/${pid}/mountinfo`));
  });
}

/** Devices of mounted btrfs file systems: of several, mountinfo names one alone. */
function btrfsMembers(devices: readonly string[], root: string): readonly DeviceUser[] {
  return listFolder(`${root}/sys/fs/btrfs`).flatMap((id) =>
    listFolder(`${root}/sys/fs/btrfs/${id}/devices`)
      .filter((device) => devices.includes(device))
      .map((device): DeviceUser => ({ kind: 'holder', device, holder: `btrfs ${id}` })),
  );
}

/** 'dm-0 (vg-root)' where device mapper has a name that says more. */
function mapperName(holder: string, root: string): string {
  const name = textOf(`${root}/sys/block/${holder}/dm/name`).trimEnd();
  return name === '' ? holder : `${holder} (${name})`;
}

/** Only paths below /dev are looked at: a stat elsewhere could wait for a server that is gone. No path, no number: ''. */
function blockDeviceAt(root: string, path: string): string {
  if (!path.startsWith('/dev/')) return '';
  try {
    const stat = statSync(`${root}${path}`);
    return stat.isBlockDevice() ? deviceNumberText(stat.rdev) : '';
  } catch {
    return '';
  }
}

function isFile(link: string, dev: number, ino: number): boolean {
  if (!readLink(link)?.startsWith('/')) return false; // a socket or a pipe
  try {
    const stat = statSync(link);
    return stat.dev === dev && stat.ino === ino;
  } catch {
    return false;
  }
}

function textOf(path: string): string {
  return readText(path) ?? '';
}
