import { launch } from '../daemon/launch.js';
import { readState } from '../daemon/state-file.js';
import { requireRoot } from '../kernel/nbd-device.js';
import { attachedDevices, requireDevice } from '../kernel/sysfs.js';
import { AttachError, attachErrorOf } from './errors.js';
import { askOwner, isGone } from './owner.js';
import { lastRecord } from './revive.js';
import { donePreparing, prepareServing, servingNodeOptions } from './serving-process.js';
import type { Program, Revival } from './succession.js';

/** Longer than the process gives itself for it (hand-over). */
const RESTART_LIMIT_MS = 120_000;

/**
 * Has the process that serves an attached image replaced by one of the program that runs here, while the device is used.
 * Where it throws, the old one goes on. If it was killed, the new one goes on without it.
 *
 * @throws KernelError 'not-root', 'no-module', 'no-device'; AttachError; DaemonError; LaunchedError
 */
export async function restartDevice(device: string): Promise<void> {
  requireDevice(device);
  requireRoot(`restart the process of /dev/${device}`);
  if (!attachedDevices().includes(device)) throw new AttachError('refused', `/dev/${device} is not attached`);
  const entry = new URL('./attach-process.js', import.meta.url);
  if (readState(device) !== undefined) {
    try {
      await restartByOwner(device, entry);
      return;
    } catch (error) {
      if (!(await isGone(device, error))) throw error;
    }
  }
  const { request } = lastRecord(device).served;
  const task: Revival = { kind: 'revival', device, request };
  prepareServing();
  const launched = launch(entry, task, () => {}, { nodeOptions: servingNodeOptions(request) });
  donePreparing();
  await launched;
}

async function restartByOwner(device: string, entry: URL): Promise<void> {
  const program: Program = { execPath: process.execPath, entry: entry.href };
  const answer = await askOwner(device, { command: 'restart', program }, RESTART_LIMIT_MS);
  if (!answer.ok) throw attachErrorOf(answer);
}
