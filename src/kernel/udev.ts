import { existsSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { KernelError } from './errors.js';
import { listFolder } from './kernel-files.js';
import { firstLine, runProgram } from './run-program.js';
import { deviceNumber, waitFor } from './sysfs.js';

/** There while udevd runs (systemd's src/udev/udev-ctrl.c). */
const controlSocket = '/run/udev/control';
/** What udevd wrote of a device when it was done with it. */
const database = '/run/udev/data';
/** There while an event waits or is worked on. */
const queue = '/run/udev/queue';
const rulesFolder = '/run/udev/rules.d';
const reloadLimitMs = 5_000;
const makeLimitMs = 5_000;

/** Whether somebody makes the nodes of new devices, and looks at what is on them. */
export function udevRuns(): boolean {
  return existsSync(controlSocket);
}

/** What udevd had written of each device at a moment; it writes a new file at each event. */
export type UdevView = ReadonlyMap<string, string>;

export function lookAtUdev(): UdevView {
  const entries = listFolder(database).filter((entry) => /^b[0-9]+:/.test(entry));
  return new Map(entries.map((entry) => [entry, written(entry)]));
}

/**
 * Waits until udev has done what it does with devices and partitions that were set up after `before`; answers false where it
 * is late, which is no error. One event does not say that it is the last: that of an earlier use may come now, and a set-up by ioctl has one
 * before its data can be read. So whatever waits is waited for.
 */
export async function waitForUdev(names: readonly string[], before: UdevView, limitMs: number): Promise<boolean> {
  if (!udevRuns()) return true;
  const entries = names.map((name) => `b${deviceNumber(name)}`);
  const isSeen = (entry: string) => !['', before.get(entry)].includes(written(entry));
  const look = () => entries.every(isSeen) && !existsSync(queue);
  return waitFor(`udev to look at ${names.join(', ')}`, limitMs, look).then(
    () => true,
    () => false,
  );
}

/** '' where there is nothing. */
function written(entry: string): string {
  const stat = statSync(`${database}/${entry}`, { throwIfNoEntry: false });
  return stat === undefined ? '' : `${stat.ino}:${stat.mtimeMs}`;
}

/** Makes the node of a device that the kernel has, as in a container. @throws KernelError 'system' */
export async function makeNode(name: string): Promise<void> {
  const [major = '', minor = ''] = deviceNumber(name)?.split(':') ?? [];
  const path = `/dev/${name}`;
  const end = await runProgram('mknod', ['-m', '660', '--', path, 'b', major, minor], { limitMs: makeLimitMs });
  if (existsSync(path)) return; // somebody may have been faster
  throw new KernelError('system', `cannot make ${path}: ${end.isLate ? 'mknod does not end' : firstLine(end.stderr)}`);
}

/** A node that is gone already is no error. */
export function removeNode(name: string): void {
  rmSync(`/dev/${name}`, { force: true });
}

/** What a rule of `hideVolumes` is for: a device by its name, or what a process of ours connects by netlink. */
export type HiddenDevice = { readonly name: string } | { readonly backend: string };

/**
 * LVM and md take every volume that they find for their own, and then hold the device; what is in an image is none of this
 * machine's. The rule stands behind that which looks what is on a device (60) and before theirs (64, 69), and takes the
 * finding away.
 */
export async function hideVolumes(of: HiddenDevice): Promise<void> {
  const match = 'name' in of ? `KERNEL=="${of.name}|${of.name}p*"` : `ATTRS{backend}=="${glob(of.backend)}"`;
  const isVolume = 'ENV{ID_FS_TYPE}=="LVM?_member|*_raid_member"';
  mkdirSync(rulesFolder, { recursive: true });
  writeFileSync(ruleFile(of), `SUBSYSTEM=="block", ${match}, ${isVolume}, ENV{ID_FS_TYPE}="", ENV{ID_FS_USAGE}=""\n`);
  await reloadRules();
}

/** What a process that was killed has hidden is seen again, by the next event too. */
export async function showVolumes(of: HiddenDevice): Promise<void> {
  unhideVolumes(of);
  await reloadRules();
}

/** A rule that is gone already is no error. */
export function unhideVolumes(of: HiddenDevice): void {
  rmSync(ruleFile(of), { force: true });
}

/** The rule of this process for a device that the kernel was to choose, if there is one, is that device's from now on. */
export function nameRule(name: string): void {
  const nameless = ruleFile({ backend: '' });
  if (existsSync(nameless)) renameSync(nameless, ruleFile({ name }));
}

/** It looks for new rules by itself only every 3 seconds. */
async function reloadRules(): Promise<void> {
  await runProgram('udevadm', ['control', '--reload'], { limitMs: reloadLimitMs });
}

function ruleFile(of: HiddenDevice): string {
  return `${rulesFolder}/62-tsnbd-${'name' in of ? of.name : `auto-${process.pid}`}.rules`;
}

/** What could mean something in a rule matches any character. */
function glob(text: string): string {
  return text.replaceAll(/[^A-Za-z0-9_.:*-]/g, '?');
}
