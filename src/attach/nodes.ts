import { existsSync, statSync } from 'node:fs';
import type { UndoStack } from '../base/undo.js';
import { readLastState } from '../daemon/state-file.js';
import { ownMarks } from '../kernel/device-owner.js';
import { type DeviceChoice, requireRoot } from '../kernel/nbd-device.js';
import { deviceState } from '../kernel/sysfs.js';
import {
  type HiddenDevice,
  hideVolumes,
  lookAtUdev,
  makeNode,
  nameRule,
  removeNode,
  showVolumes,
  type UdevView,
  udevRuns,
  unhideVolumes,
} from '../kernel/udev.js';
import type { ServingChoice } from './attach-request.js';
import type { DeviceRecord } from './devices.js';

/** A node that was made: its name, and what tells it from another of that name, in the /dev of another program too. */
export type MadeNode = readonly [name: string, identity: string];

/** What was done about udev, or in its place, before a device was set up. */
export interface PreparedNodes {
  /** The nodes that were made for it; the caller adds what it makes. An undo removes them. */
  readonly made: MadeNode[];
  /** What udev had done before. */
  readonly udev: UdevView;
  /** To be called when the device is up, which the kernel may have chosen, and before its state is written. */
  isUp(device: string): void;
}

/** What has to be done about udev, or in its place, before a device is set up: its first look at it comes at once. */
export async function prepareNodes(choice: DeviceChoice & ServingChoice, undo: UndoStack): Promise<PreparedNodes> {
  const { device, identifier } = choice;
  const made: MadeNode[] = [];
  let hidden: HiddenDevice = device === undefined ? { backend: identifier ?? ownMarks() } : { name: device };
  if (!udevRuns()) {
    await undo.step(
      'make the node',
      () => makeMissing(device, made),
      () => made.forEach(removeMade),
    );
  } else if (device === undefined || isDown(device)) {
    // Nothing of whoever has it is touched otherwise; that it is not free is found when it is to be connected.
    requireRoot(device === undefined ? 'attach a device' : `attach /dev/${device}`);
    await undo.step(
      'tell udev what to do with volumes',
      () => (choice.allowVolumes ? showVolumes(hidden) : hideVolumes(hidden)),
      () => unhideVolumes(hidden),
    );
  }
  return {
    made,
    udev: lookAtUdev(),
    isUp: (name) => {
      if (device === undefined) nameRule(name);
      hidden = { name };
      const left = leftNodes(readLastState(name)?.about);
      made.push(...left.filter(([node]) => !made.some(([each]) => each === node)));
    },
  };
}

/** Removes what was made for a device that is down now, where no process of ours is left that does. */
export function dropNodes(device: string, about: Partial<DeviceRecord> | undefined): void {
  unhideVolumes({ name: device });
  leftNodes(about).forEach(removeMade);
}

/** A node that is there now, and that this process has made. */
export function madeNode(name: string): MadeNode {
  return [name, identityOf(name) ?? ''];
}

/** The nodes of a device and its partitions that were made, as it was written down, and are still there. */
function leftNodes(about: Partial<DeviceRecord> | undefined): readonly MadeNode[] {
  return (about?.nodes ?? []).filter(([name, identity]) => identityOf(name) === identity);
}

function removeMade([name, identity]: MadeNode): void {
  if (identityOf(name) === identity) removeNode(name);
}

function identityOf(name: string): string | undefined {
  const stat = statSync(`/dev/${name}`, { throwIfNoEntry: false });
  return stat === undefined ? undefined : `${stat.dev}:${stat.ino}`;
}

function isDown(device: string): boolean {
  const { pid, sizeBytes } = deviceState(device);
  return pid === undefined && sizeBytes === 0;
}

/** A device that the kernel has, and nobody has made the node of. */
async function makeMissing(device: string | undefined, made: MadeNode[]): Promise<void> {
  if (device === undefined || !deviceState(device).exists || existsSync(`/dev/${device}`)) return;
  await makeNode(device);
  made.push(madeNode(device));
}
