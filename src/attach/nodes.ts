import { existsSync } from 'node:fs';
import type { UndoStack } from '../base/undo.js';
import { ownMarks } from '../kernel/device-owner.js';
import { type DeviceChoice, requireRoot } from '../kernel/nbd-device.js';
import { deviceState } from '../kernel/sysfs.js';
import { hideVolumes, makeNode, removeNode, udevRuns, unhideVolumes } from '../kernel/udev.js';
import type { ServingChoice } from './attach-request.js';

/**
 * What has to be done about udev, or in its place, before a device is set up: its first look at it comes at once. Answers the
 * list of nodes that were made, which the caller goes on with: an undo removes them.
 */
export async function prepareNodes(choice: DeviceChoice & ServingChoice, undo: UndoStack): Promise<string[]> {
  const made: string[] = [];
  if (!udevRuns()) {
    await undo.step(
      'make the node',
      () => makeMissing(choice.device, made),
      () => made.forEach(removeNode),
    );
  } else if (!choice.allowVolumes) {
    const { device, identifier } = choice;
    requireRoot(device === undefined ? 'attach a device' : `attach /dev/${device}`);
    const hidden = device === undefined ? { backend: identifier ?? ownMarks() } : { name: device };
    await undo.step(
      'hide volumes from udev',
      () => hideVolumes(hidden),
      () => unhideVolumes(hidden),
    );
  }
  return made;
}

/** A device that the kernel has, and nobody has made the node of. */
async function makeMissing(device: string | undefined, made: string[]): Promise<void> {
  if (device === undefined || !deviceState(device).exists || existsSync(`/dev/${device}`)) return;
  await makeNode(device);
  made.push(device);
}
