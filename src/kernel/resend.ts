import type { DeviceSetup } from './nbd-device.js';
import { setRequestTimer } from './sysfs.js';

// What makes the driver send requests again soon after a lost connection was replaced: drivers/block/nbd.c, nbd_xmit_timeout.

/** How long requests that were sent on a lost connection stay there after another was found, about. */
const resendMs = 2_000;
const resendLimitMs = 5_000;

/**
 * Whether the driver's timer sends requests again, if their connection is not the device's any more, and does nothing else.
 * With a request limit, or several connections, it drops them, however well they are.
 */
export function isSentAgain({ deadTimeoutSeconds, requestTimeoutSeconds, sockets }: DeviceSetup): boolean {
  return deadTimeoutSeconds !== undefined && requestTimeoutSeconds === 0 && sockets.length === 1;
}

/** What the kernel takes for several connections, whose requests may not go without a limit (nbd_set_cmd_timeout). */
const severalTimeoutSeconds = 30;

/** The limit of a request as the kernel keeps it; 0 is none. */
export function effectiveTimeoutSeconds({ requestTimeoutSeconds, sockets }: DeviceSetup): number {
  return requestTimeoutSeconds === 0 && sockets.length > 1 ? severalTimeoutSeconds : requestTimeoutSeconds;
}

/** After a CONNECT, which sets the timer back. @throws KernelError 'system' or 'time-limit' */
export async function sendAgainSoon(setup: DeviceSetup, name: string): Promise<void> {
  if (isSentAgain(setup)) await setRequestTimer(name, resendMs, resendLimitMs);
}
