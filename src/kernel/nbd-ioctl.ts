import { closeSync, existsSync, fsyncSync, openSync } from 'node:fs';
import type { UndoStack } from '../base/undo.js';
import { setupError } from './device-errors.js';
import { systemError } from './errors.js';
import { shutdownFd } from './fd-calls.js';
import { clearDevice, IoctlDevice, openDevice } from './ioctl-device.js';
import { libc, loadLibc } from './libc.js';
import { NBD_DISCONNECT, NBD_SET_BLKSIZE, NBD_SET_FLAGS, NBD_SET_SIZE, NBD_SET_TIMEOUT } from './nbd-abi.js';
import type { DeviceSetup, NbdDevice } from './nbd-device.js';
import { deviceState, setLongestRequest } from './sysfs.js';

/**
 * The set-up by ioctl, all of it from the calling thread, as drivers/block/nbd.c wants. The first socket comes first: it
 * makes the device ours, and until then a second program that sets it up would get our sizes. The kernel keeps what it is
 * told until NBD_DO_IT, so a set-up that ends before leaves the device without a size; and it forgets it at the last
 * close, or not, if udev has it open: so all of it is told every time.
 */
export async function connectByIoctl(name: string, setup: DeviceSetup, undo: UndoStack): Promise<NbdDevice> {
  loadLibc();
  const device = await undo.step(
    'open the device',
    () => new IoctlDevice(name, setup),
    (opened) => opened.close(),
  );
  for (const [index, socket] of setup.sockets.entries()) {
    await undo.step(
      `hand over socket ${index + 1}`,
      () => device.handOver(socket),
      // The kernel keeps the socket until the last close of the device: the server must not wait for that.
      () => shutdownFd(socket),
    );
  }
  const { blockSizeBytes, sizeBytes, flags, requestTimeoutSeconds } = setup;
  await undo.step('set the block size', () => device.tell(NBD_SET_BLKSIZE, blockSizeBytes));
  await undo.step('set the size', () => device.tell(NBD_SET_SIZE, sizeBytes));
  await undo.step('set the flags', () => device.tell(NBD_SET_FLAGS, flags));
  await undo.step('set the timeout', () => device.tell(NBD_SET_TIMEOUT, requestTimeoutSeconds));
  await undo.step(
    'set the longest request',
    () => setLongestRequest(name, setup.requestBytesMax),
    () => setLongestRequest(name, undefined),
  );
  await undo.step(
    'start the device',
    () => device.start(),
    () => device.stop(),
  );
  return device;
}

/** See `disconnectForeignDevice`. Clearing also ends what netlink set up, or a server that does not close. */
export function disconnectByIoctl(name: string, force: boolean): void {
  loadLibc();
  const fd = openDevice(name);
  try {
    if (!force) flush(name, fd);
    const result = libc.ioctl(fd, NBD_DISCONNECT, 0);
    if (result < 0) throw setupError(name, NBD_DISCONNECT, 0, -result);
    clearDevice(fd);
  } finally {
    closeSync(fd);
  }
}

/** Each partition has pages of its own, which a flush of the whole device leaves out. */
function flush(name: string, fd: number): void {
  try {
    for (const partition of deviceState(name).partitions) flushPartition(`/dev/${partition}`);
    fsyncSync(fd);
  } catch (cause) {
    const { errno = 0 } = cause as NodeJS.ErrnoException;
    throw systemError(`write what is left to /dev/${name}`, -errno);
  }
}

function flushPartition(path: string): void {
  if (!existsSync(path)) return;
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
