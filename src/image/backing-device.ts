import { realpathSync, statSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { listFolder, readText } from '../kernel/kernel-files.js';
import { deviceNumberText, parseMountinfo } from '../kernel/proc-tables.js';
import { pathBytes } from './file-name.js';

/** Devices on files on devices …: deeper than any stack that somebody built on purpose. */
const depthMax = 16;

// `root` is where /sys and /proc are looked for: tests put trees of their own there.

/**
 * Whether the image at `path` is the block device `device` ('nbd0') or one of its partitions, or lies on it: in a file
 * system there, through partitions, device mapper, md and loop devices. Whoever served such an image would wait for
 * itself. What an overlay or a network file system lies on is not seen. A path that is not there lies nowhere.
 */
export function imageLiesOn(path: string, device: string, root = ''): boolean {
  return fileLiesOn(path, device, root, 0);
}

/** The same for the device with the number 'MAJOR:MINOR' and all that is below it. */
export function deviceLiesOn(number: string, device: string, root = '', depth = 0): boolean {
  const folder = realPath(`${root}/sys/dev/block/${number}`);
  if (folder === undefined) return false;
  if (basename(folder) === device) return true;
  if (depth >= depthMax) return true; // no end in sight: not to be trusted
  // A partition's folder lies in its disk's; a disk has the loop file and the devices it is made of.
  const disk = readText(`${folder}/partition`) === undefined ? folder : dirname(folder);
  if (basename(disk) === device) return true;
  const loopFile = readText(`${disk}/loop/backing_file`)?.trimEnd();
  if (loopFile !== undefined && fileLiesOn(loopFile, device, root, depth + 1)) return true;
  return listFolder(`${disk}/slaves`).some((lower) => {
    const lowerNumber = readText(`${disk}/slaves/${lower}/dev`)?.trim();
    return lowerNumber !== undefined && deviceLiesOn(lowerNumber, device, root, depth + 1);
  });
}

function fileLiesOn(path: string, device: string, root: string, depth: number): boolean {
  return devicesBelow(path, root).some((lower) => deviceLiesOn(lower, device, root, depth));
}

/**
 * The numbers ('MAJOR:MINOR') of the block devices that the file at `path` lies on, or of the one that it is; none for a
 * file in memory, on a network, in an overlay, or that is not there.
 */
export function devicesBelow(path: string, root = ''): readonly string[] {
  try {
    const stat = statSync(pathBytes(path));
    if (stat.isBlockDevice()) return [deviceNumberText(stat.rdev)];
    const number = deviceNumberText(stat.dev);
    return number.startsWith('0:') ? mountedDevices(realpathSync(pathBytes(path)), root) : [number];
  } catch {
    return [];
  }
}

/** btrfs gives its files a made-up device number: the devices are those of the file system that is mounted at the path. */
function mountedDevices(path: string, root: string): readonly string[] {
  const mounts = parseMountinfo(readText(`${root}/proc/self/mountinfo`) ?? '');
  const mount = mounts
    .filter(({ mountPoint }) => mountPoint === '/' || path === mountPoint || path.startsWith(`${mountPoint}/`))
    .reduce((deepest, next) => (next.mountPoint.length >= deepest.mountPoint.length ? next : deepest));
  if (mount.fileSystem !== 'btrfs' || !mount.source.startsWith('/dev/')) return [];
  const first = statSync(mount.source).rdev;
  return [deviceNumberText(first), ...btrfsMembers(deviceNumberText(first), root)];
}

/** All devices of the btrfs file system that has a device of this number. */
function btrfsMembers(number: string, root: string): readonly string[] {
  const fileSystems = listFolder(`${root}/sys/fs/btrfs`).map((id) => {
    const folder = `${root}/sys/fs/btrfs/${id}/devices`;
    return listFolder(folder).flatMap((member) => readText(`${folder}/${member}/dev`)?.trim() ?? []);
  });
  return fileSystems.find((members) => members.includes(number)) ?? [];
}

function realPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}
