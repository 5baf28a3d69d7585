import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { deviceIndex } from './device-name.js';
import { errnoText } from './errno.js';
import { KernelError } from './errors.js';
import { listFolder, readText } from './kernel-files.js';
import { SECTOR_BYTES } from './nbd-abi.js';
import { within } from './within.js';

/** What the kernel tells of a device without the device being opened. */
export interface DeviceState {
  readonly exists: boolean;
  /** 0 while the device is down. */
  readonly sizeBytes: number;
  /**
   * The thread in NBD_DO_IT, or the process that connected the device by netlink and may have ended long ago; absent while
   * the device is down and nobody holds it open.
   */
  readonly pid: number | undefined;
  readonly readOnly: boolean;
  /** As the kernel names them, in the order of their numbers: 'nbd0p1', 'nbd0p2', 'nbd0p10'. */
  readonly partitions: readonly string[];
  /** How many partitions a device can have, the parameter of the module; 0 is none. */
  readonly maxPart: number;
}

/** Whether this kernel has the nbd driver now. */
export interface NbdPresence {
  readonly loaded: boolean;
  /** Part of the kernel itself: modprobe has nothing to load, parameters stand on the kernel's command line. */
  readonly builtIn: boolean;
  /** How many devices were made when the driver started. */
  readonly devicesMax: number;
  readonly maxPart: number;
}

// `root` is where /sys, /proc and /dev are looked for: tests put trees of their own there.

export function deviceState(name: string, root = ''): DeviceState {
  const folder = `${root}/sys/block/${name}`;
  const pid = readNumber(`${folder}/pid`);
  return {
    exists: existsSync(folder),
    sizeBytes: (readNumber(`${folder}/size`) ?? 0) * SECTOR_BYTES,
    pid: pid === 0 ? undefined : pid,
    readOnly: readNumber(`${folder}/ro`) === 1,
    partitions: partitionsOf(name, root),
    maxPart: nbdPresence(root).maxPart,
  };
}

/** Where the numbers stand in `stat`: Documentation/block/stat.rst. */
const statReads = 0;
const statWrites = 4;
const statInFlight = 8;
const statDiscards = 11;
const statFlushes = 15;

/** Whether nothing can be written to a device or a partition. */
export function isReadOnly(name: string, root = ''): boolean {
  return readNumber(`${root}/sys/class/block/${name}/ro`) === 1;
}

/** The requests that a device has under way, and how many it has done; nothing of both where the kernel does not count. */
export function requestCounts(name: string, root = ''): { readonly inFlight: number; readonly completed: number } {
  const numbers = (readText(`${root}/sys/block/${name}/stat`) ?? '').trim().split(/\s+/).map(Number);
  const at = (index: number): number => numbers[index] ?? 0;
  const completed = [statReads, statWrites, statDiscards, statFlushes].reduce((sum, index) => sum + at(index), 0);
  return { inFlight: at(statInFlight), completed };
}

/**
 * The text by which whoever connected a device by netlink marked it (device-owner.ts), '' for none; absent while the device
 * is down, or up by ioctl. Much depends on it, so what keeps it from being read is thrown.
 */
export function deviceBackend(name: string, root = ''): string | undefined {
  try {
    return readFileSync(`${root}/sys/block/${name}/backend`, 'utf8').trimEnd();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENODEV') return undefined; // ENODEV: it went between open and read
    throw error;
  }
}

/** The devices that carry this mark. */
export function devicesWithBackend(backend: string, root = ''): readonly string[] {
  return listFolder(`${root}/sys/block`).filter(
    (name) => name.startsWith('nbd') && deviceBackend(name, root) === backend,
  );
}

/**
 * How often nbd devices are open, all of them together; absent where the driver is built in, and nobody counts. Each that is
 * configured counts once for that (nbd_alloc_config). Too many rather than too few: what has the driver busy counts too.
 */
export function opensOfDevices(root = ''): number | undefined {
  const references = readNumber(`${root}/sys/module/nbd/refcnt`);
  if (references === undefined) return undefined;
  const configured = attachedDevices(root).filter((name) => deviceState(name, root).pid !== undefined);
  return references - configured.length;
}

/** The devices that exist, in the order of their numbers. */
export function nbdDevices(root = ''): readonly string[] {
  return listFolder(`${root}/sys/block`)
    .filter((name) => /^nbd[0-9]+$/.test(name))
    .sort((a, b) => deviceIndex(a) - deviceIndex(b));
}

/** The devices that are up, or have a size although they are not, in the order of their numbers. */
export function attachedDevices(root = ''): readonly string[] {
  return nbdDevices(root).filter((name) => {
    const { pid, sizeBytes } = deviceState(name, root);
    return pid !== undefined || sizeBytes > 0;
  });
}

export function nbdPresence(root = ''): NbdPresence {
  const folder = `${root}/sys/module/nbd`;
  const loaded = existsSync(folder);
  return {
    loaded,
    builtIn: loaded && !existsSync(`${folder}/initstate`),
    devicesMax: readNumber(`${folder}/parameters/nbds_max`) ?? 0,
    maxPart: readNumber(`${folder}/parameters/max_part`) ?? 0,
  };
}

/** @throws KernelError 'no-module', with what to do about it */
export function requireNbd(root = ''): NbdPresence {
  const presence = nbdPresence(root);
  if (!presence.loaded) throw noModule(root);
  return presence;
}

/** @throws KernelError 'no-module' or 'no-device', with what to do about it */
export function requireDevice(name: string, root = ''): void {
  const presence = requireNbd(root);
  if (!existsSync(`${root}/sys/block/${name}`)) throw noDevice(name, presence);
  if (existsSync(`${root}/dev/${name}`)) return;
  const [major, minor] = deviceNumber(name, root)?.split(':') ?? [];
  throw new KernelError(
    'no-device',
    `the kernel has ${name}, but /dev/${name} is missing; make it with: mknod /dev/${name} b ${major} ${minor}`,
  );
}

/** 'MAJOR:MINOR' of a block device, a partition included. */
export function deviceNumber(name: string, root = ''): string | undefined {
  const disk = /^((?:nbd|loop|md)[0-9]+)p[0-9]+$/.exec(name)?.[1];
  return readText(`${root}/sys/block/${disk === undefined ? name : `${disk}/${name}`}/dev`)?.trim();
}

/** What the driver starts with (nbd.c: nbd_dev_add); an earlier user's value stays otherwise. */
const longestRequestKiB = 128;

/** Bounds the kernel's reads and writes. @throws KernelError 'system' where /sys cannot be written and has another value */
export function setLongestRequest(name: string, requestBytesMax: number | undefined): void {
  const path = `/sys/block/${name}/queue/max_sectors_kb`;
  const wanted = Math.min(longestRequestKiB, Math.floor((requestBytesMax ?? Number.POSITIVE_INFINITY) / 1024));
  try {
    if (Number(readFileSync(path, 'utf8')) !== wanted) writeFileSync(path, `${wanted}\n`);
  } catch (cause) {
    const { errno = 0 } = cause as NodeJS.ErrnoException;
    throw new KernelError(
      'system',
      `cannot set the longest request of /dev/${name} to ${wanted} KiB: ${errnoText(-errno)}`,
      {
        cause,
      },
    );
  }
}

/**
 * After how long, and then how often, the driver looks after a request that was sent. Newer kernels let all that is under way
 * come to its end first, for which they may wait for the server: so not on the main thread.
 *
 * @throws KernelError 'system' or 'time-limit'
 */
export async function setRequestTimer(name: string, intervalMs: number, limitMs: number): Promise<void> {
  const doing = `set the request timer of /dev/${name} to ${intervalMs} ms`;
  try {
    const { writeFile } = process.getBuiltinModule('node:fs/promises');
    const written = writeFile(`/sys/block/${name}/queue/io_timeout`, `${intervalMs}\n`);
    if ((await within(written, limitMs)) !== 'late') return;
  } catch (cause) {
    const { errno = 0 } = cause as NodeJS.ErrnoException;
    throw new KernelError('system', `cannot ${doing}: ${errnoText(-errno)}`, { cause });
  }
  throw new KernelError('time-limit', `could not ${doing} in ${limitMs / 1000} s: the server does not answer`);
}

/**
 * A setting of the queue of the disk with the number 'MAJOR:MINOR', or of the disk that such a partition is of; absent
 * where there is none.
 */
export function queueAttribute(number: string, attribute: string, root = ''): number | undefined {
  const folder = `${root}/sys/dev/block/${number}`;
  return readNumber(`${folder}/queue/${attribute}`) ?? readNumber(`${folder}/../queue/${attribute}`);
}

const pollMsMin = 2;
const pollMsMax = 50;

/**
 * Looks until `look` answers true, at least once and once more at the end.
 *
 * @throws KernelError 'time-limit': "waited 5 s in vain for ${what}"
 */
export async function waitFor(what: string, limitMs: number, look: () => boolean): Promise<void> {
  const end = performance.now() + limitMs;
  for (let pollMs = pollMsMin; !look(); pollMs = Math.min(2 * pollMs, pollMsMax)) {
    const leftMs = end - performance.now();
    if (leftMs <= 0) throw new KernelError('time-limit', `waited ${limitMs / 1000} s in vain for ${what}`);
    await sleep(Math.min(pollMs, leftMs));
  }
}

function partitionsOf(name: string, root: string): readonly string[] {
  const number = (entry: string): number => Number(entry.slice(name.length + 1));
  return listFolder(`${root}/sys/block/${name}`)
    .filter((entry) => entry.startsWith(`${name}p`) && /^[1-9][0-9]*$/.test(entry.slice(name.length + 1)))
    .sort((a, b) => number(a) - number(b));
}

function noModule(root: string): KernelError {
  const modules = readText(`${root}/lib/modules/${release()}/modules.dep`);
  const advice =
    modules === undefined || /\/nbd\.ko/.test(modules)
      ? 'the nbd module is not loaded; load it with: modprobe nbd max_part=8'
      : `this kernel (${release()}) comes without the nbd module; install its package of extra modules or another kernel`;
  return new KernelError('no-module', advice);
}

function noDevice(name: string, presence: NbdPresence): KernelError {
  const { devicesMax, builtIn } = presence;
  const wanted = deviceIndex(name) + 1;
  const more = builtIn
    ? `nbd.nbds_max=${wanted} on the kernel's command line makes more`
    : `modprobe -r nbd; modprobe nbd max_part=8 nbds_max=${wanted} makes more`;
  return new KernelError(
    'no-device',
    `/dev/${name} does not exist: this kernel has ${devicesMax} devices (nbds_max=${devicesMax}); ${more}`,
  );
}

function readNumber(path: string): number | undefined {
  const text = readText(path)?.trim();
  return text !== undefined && /^[0-9]+$/.test(text) ? Number(text) : undefined;
}
