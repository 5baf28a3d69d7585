import { readdirSync, readFileSync, realpathSync, type Stats, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { deviceNumberText, parseMountinfo } from '../kernel/proc-tables.js';

/** Devices on devices on devices: more than anybody builds, and an end for what the kernel would call a loop. */
const DEPTH_MAX = 16;

/**
 * Whether a file, or the block device, of `stat` lies on the disk `device` ('nbd0'): on itself, a partition, or through
 * loop devices, device mapper and the like above it. A process that served it would wait for itself.
 */
export function liesOnDevice(stat: Stats, device: string): boolean {
  return diskNamesBelow(numberOf(stat), 0).has(device);
}

/** 'MAJOR:MINOR' of where the bytes are. */
function numberOf(stat: Stats): string {
  return deviceNumberText(stat.isBlockDevice() ? stat.rdev : stat.dev);
}

function diskNamesBelow(number: string, depth: number): ReadonlySet<string> {
  const names = new Set<string>();
  if (depth === DEPTH_MAX) return names;
  const add = (below: string | undefined) => {
    if (below === undefined) return;
    for (const name of diskNamesBelow(below, depth + 1)) names.add(name);
  };
  const folder = folderOf(number);
  if (folder === undefined) {
    add(mountSource(number));
    return names;
  }
  names.add(basename(folder));
  if (readText(join(folder, 'partition')) !== undefined) add(readText(join(dirname(folder), 'dev')));
  for (const slave of listFolder(join(folder, 'slaves'))) add(readText(join(folder, 'slaves', slave, 'dev')));
  const backingFile = readText(join(folder, 'loop', 'backing_file'));
  if (backingFile !== undefined) add(numberAt(backingFile));
  return names;
}

/** A file system that makes up its device number (btrfs) tells where it lies by its mount. */
function mountSource(number: string): string | undefined {
  const mount = parseMountinfo(readText('/proc/self/mountinfo') ?? '').find((entry) => entry.deviceNumber === number);
  return mount?.source.startsWith('/dev/') ? numberAt(mount.source) : undefined;
}

function numberAt(path: string): string | undefined {
  try {
    return numberOf(statSync(path));
  } catch {
    return undefined;
  }
}

/** The device's folder in sysfs; absent for what is no block device. */
function folderOf(number: string): string | undefined {
  try {
    return realpathSync(`/sys/dev/block/${number}`);
  } catch {
    return undefined;
  }
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trimEnd();
  } catch {
    return undefined;
  }
}

function listFolder(path: string): readonly string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
