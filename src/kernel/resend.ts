import type { DeviceSetup } from './nbd-device.js';
import { limitWrites } from './socket-calls.js';
import { setRequestTimer } from './sysfs.js';

// What makes the driver send requests again soon after a lost connection was replaced: drivers/block/nbd.c, nbd_xmit_timeout.

/** A server that does not read for so long, while requests wait to be sent, is taken for lost. */
const sendLimitSeconds = 5;
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

/** Before a socket goes to the kernel: what waits in vain to be sent ends the connection. @throws KernelError 'system' */
export function prepareSocket(setup: DeviceSetup, socket: number): void {
  if (isSentAgain(setup)) limitWrites(socket, sendLimitSeconds);
}

/** After a CONNECT, which sets the timer back. @throws KernelError 'system' or 'time-limit' */
export async function sendAgainSoon(setup: DeviceSetup, name: string): Promise<void> {
  if (isSentAgain(setup)) await setRequestTimer(name, resendMs, resendLimitMs);
}
