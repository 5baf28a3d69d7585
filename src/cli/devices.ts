import { describeDevice, listDevices } from '../attach/devices.js';
import { deviceAsJson, deviceAsText, devicesAsJson, devicesAsText } from './device-report.js';
import { EXIT_STATUSES } from './exit-status.js';
import type { LsAction } from './tsnbd-ls-options.js';
import type { ResizeAction } from './tsnbd-resize-options.js';
import type { StatusAction } from './tsnbd-status-options.js';

/** Prints a line for each device that is attached. */
export async function showDevices({ json }: LsAction): Promise<number> {
  const devices = await listDevices();
  process.stdout.write(json ? devicesAsJson(devices) : devicesAsText(devices));
  return EXIT_STATUSES.done.status;
}

/** Prints all that is known of a device. */
export async function showDevice({ device, json }: StatusAction): Promise<number> {
  const described = await describeDevice(device);
  process.stdout.write(json ? deviceAsJson(described) : deviceAsText(described));
  return EXIT_STATUSES.done.status;
}

/** Prints the size that the device has then, in bytes. */
export async function resizeAndTell({ device, sizeBytes, force }: ResizeAction): Promise<number> {
  const { resizeDevice } = await import('../attach/resize.js');
  process.stdout.write(`${await resizeDevice(device, { sizeBytes, force })}\n`);
  return EXIT_STATUSES.done.status;
}
