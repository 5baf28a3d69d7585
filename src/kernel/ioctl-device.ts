import { closeSync, constants, openSync } from 'node:fs';
import { invariant } from '../base/invariant.js';
import { callInThread, type ThreadEnd } from './call-thread.js';
import { openError, setupError, startError } from './device-errors.js';
import { KernelError, threadError } from './errors.js';
import { shutdownFd } from './fd-calls.js';
import { libc } from './libc.js';
import { BLKRRPART, NBD_CLEAR_SOCK, NBD_DISCONNECT, NBD_DO_IT, NBD_SET_SIZE, NBD_SET_SOCK } from './nbd-abi.js';
import type { DeviceEnd, DeviceSetup, NbdDevice } from './nbd-device.js';
import { deviceState, waitFor } from './sysfs.js';
import { within } from './within.js';

const startLimitMs = 10_000;
/** How long an undo lets the server answer a goodbye, and then the kernel end a device whose sockets are shut down. */
const goodbyeLimitMs = 2_000;
const endLimitMs = 10_000;

/** A device that is set up by ioctl on one fd, from one thread, and then ends on its own or is ended. */
export class IoctlDevice implements NbdDevice {
  readonly name: string;
  readonly kernelApi = 'ioctl';
  readonly link = undefined;
  readonly ended: Promise<DeviceEnd>;
  readonly #setup: DeviceSetup;
  readonly #end: (end: DeviceEnd) => void;
  #fd: number | undefined;
  /** From the first socket on NBD_CLEAR_SOCK clears what is ours; before, it would clear what is another program's. */
  #ours = false;
  /** Absent before the start; then the thread in NBD_DO_IT, and how it ended. */
  #doIt: 'running' | ThreadEnd | undefined;
  #goodbye: Promise<unknown> | undefined;
  #threadsOnFd = 0;

  constructor(name: string, setup: DeviceSetup) {
    this.name = name;
    this.#setup = setup;
    const { promise, resolve } = withResolver<DeviceEnd>();
    this.ended = promise;
    this.#end = resolve;
    this.#fd = openDevice(name);
  }

  handOver(socket: number): void {
    this.tell(NBD_SET_SOCK, socket);
    this.#ours = true;
  }

  tell(request: number, value: number): void {
    const result = libc.ioctl(this.#openFd(), request, value);
    if (result < 0) throw setupError(this.name, request, value, -result);
  }

  async start(): Promise<void> {
    this.#doIt = 'running';
    void this.#inThread(NBD_DO_IT).then(async (end) => {
      this.#doIt = end;
      await this.#goodbye;
      this.close();
      this.#end({ result: end.result });
    });
    try {
      await waitFor(
        `the kernel to start /dev/${this.name}`,
        startLimitMs,
        () => this.#isUp() || this.#threadEnd() !== undefined,
      );
      const end = this.#threadEnd();
      if (end !== undefined) throw startError(this.name, end.result, end.cause);
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  /**
   * The ioctl takes a lock that a sender holds while the socket is full and the server does not read, so it can wait, out
   * of any signal's reach, until the socket is shut down (nbd.c: send_disconnects). On the main thread it would stop those
   * who could do that; so it has a thread of its own.
   */
  disconnect(): void {
    if (this.#doIt === 'running') this.#goodbye ??= this.#inThread(NBD_DISCONNECT);
  }

  cut(): void {
    for (const socket of this.#setup.sockets) shutdownFd(socket);
  }

  /** Ends a device that is up: a goodbye, then by force. @throws KernelError 'time-limit' if the kernel does not let go */
  async stop(): Promise<void> {
    this.disconnect();
    if (await this.#endsWithin(goodbyeLimitMs)) return;
    this.cut();
    if (await this.#endsWithin(endLimitMs)) return;
    throw new KernelError('time-limit', `the kernel did not let go of /dev/${this.name} in ${endLimitMs / 1000} s`);
  }

  /** In a thread of its own, like every call that may wait for the server. */
  async resize(sizeBytes: number): Promise<void> {
    const { result, cause } = await this.#inThread(NBD_SET_SIZE, sizeBytes);
    if (cause !== undefined) throw threadError('the thread that resizes', cause);
    if (result < 0) throw setupError(this.name, NBD_SET_SIZE, sizeBytes, -result);
    await waitFor(
      `/dev/${this.name} to have its new size`,
      endLimitMs,
      () => deviceState(this.name).sizeBytes === sizeBytes,
    );
  }

  close(): void {
    const fd = this.#fd;
    if (fd === undefined) return;
    invariant(this.#threadsOnFd === 0, 'no fd is closed while a thread uses it');
    this.#fd = undefined;
    if (this.#ours) clearDevice(fd);
    closeSync(fd);
  }

  async #inThread(request: number, value = 0): Promise<ThreadEnd> {
    this.#threadsOnFd += 1;
    const end = await callInThread(this.#openFd(), { kind: 'ioctl', request, value });
    this.#threadsOnFd -= 1;
    return end;
  }

  #openFd(): number {
    invariant(this.#fd !== undefined, 'the device is open while it is set up');
    return this.#fd;
  }

  #threadEnd(): ThreadEnd | undefined {
    return this.#doIt === 'running' ? undefined : this.#doIt;
  }

  #isUp(): boolean {
    const { pid, sizeBytes } = deviceState(this.name);
    return pid !== undefined && sizeBytes === this.#setup.sizeBytes;
  }

  async #endsWithin(limitMs: number): Promise<boolean> {
    return (await within(this.ended, limitMs)) !== 'late';
  }
}

/** Not to be opened with O_EXCL: it would keep the device from being mounted for as long as it is up. */
export function openDevice(name: string): number {
  try {
    return openSync(`/dev/${name}`, constants.O_RDWR);
  } catch (cause) {
    throw openError(name, cause);
  }
}

/** Opens a device for a moment as one that it alone is to have. @throws KernelError 'busy' where somebody else has it so */
export function claimDevice(name: string): void {
  try {
    closeSync(openSync(`/dev/${name}`, constants.O_RDONLY | constants.O_EXCL | constants.O_NONBLOCK));
  } catch (cause) {
    throw openError(name, cause);
  }
}

/**
 * Ends what was set up on a device, up or not: its sockets are shut down, what waits fails. Without the second call the
 * partitions of the last use stay in /dev until somebody opens the device (seen); it is refused while one is in use.
 */
export function clearDevice(fd: number): void {
  libc.ioctl(fd, NBD_CLEAR_SOCK, 0);
  libc.ioctl(fd, BLKRRPART, 0);
}

function withResolver<T>(): { readonly promise: Promise<T>; readonly resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => {};
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
