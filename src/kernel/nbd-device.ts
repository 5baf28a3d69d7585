import { readFileSync } from 'node:fs';
import { invariant } from '../base/invariant.js';
import type { UndoStack } from '../base/undo.js';
import { dropPartitions } from './device-child.js';
import { deviceIndex } from './device-name.js';
import { isOfDeadProcess, isUnattended } from './device-owner.js';
import { KernelError, systemError } from './errors.js';
import { CAP_SYS_ADMIN } from './libc-abi.js';
import { NBD_FLAG_CAN_MULTI_CONN, SECTOR_BYTES } from './nbd-abi.js';
import { NbdFamily } from './nbd-family.js';
import { connectByIoctl, disconnectByIoctl } from './nbd-ioctl.js';
import { connectByNetlink } from './nbd-netlink.js';
import { deviceBackend, deviceState, requireDevice, requireNbd } from './sysfs.js';

/** What a device is to be. */
export interface DeviceSetup {
  /** A multiple of the block size. */
  readonly sizeBytes: number;
  /** A power of two from 512 to the page size. */
  readonly blockSizeBytes: number;
  /** The transmission flags of the negotiation. */
  readonly flags: number;
  /** How long a request may take; 0 is without limit. */
  readonly requestTimeoutSeconds: number;
  /** The server's maximum payload, where it names one: the kernel's reads and writes stay at or below it. */
  readonly requestBytesMax: number | undefined;
  /** One connection each, negotiated. The fds stay the caller's, who keeps them open until the device has ended. */
  readonly sockets: readonly number[];
  /**
   * Somebody will replace a connection that is lost (NbdDevice.link), and requests wait for that for so long; 0 is not at
   * all. By ioctl there is no such thing.
   */
  readonly deadTimeoutSeconds: number | undefined;
  /** No process is to stay behind the device, where that can be (NbdDevice.leave). */
  readonly unattended: boolean;
}

/** By which of the kernel's interfaces a device is set up: 'auto' is netlink where this network namespace has it. */
export type KernelApi = 'auto' | 'ioctl' | 'netlink';

/** Which device, and how it is to be set up. */
export interface DeviceChoice {
  /** Absent: the kernel chooses a free one, which only netlink can ask for. */
  readonly device: string | undefined;
  readonly kernelApi: KernelApi;
  /** What sysfs is to show as `backend`; absent: a mark of ours. Only netlink has it. */
  readonly identifier?: string | undefined;
  /** The device is to be gone, number and all, when it is disconnected, which only netlink can do. */
  readonly destroyOnDisconnect?: true | undefined;
}

/** A device that is up. */
export interface NbdDevice {
  readonly name: string;
  readonly kernelApi: Exclude<KernelApi, 'auto'>;
  /** Where its connections can be replaced: by netlink, and with a `deadTimeoutSeconds`. */
  readonly link: DeviceLink | undefined;
  /** Resolves, and never rejects, once the kernel has let go and this process holds nothing of the device any more. */
  readonly ended: Promise<DeviceEnd>;
  /**
   * Tells the server goodbye. By ioctl the device ends when the server has closed its connections; one that does not answer
   * is ended by shutting the sockets down. By netlink it ends at once. Returns at once, may be called again, and after the
   * end.
   */
  disconnect(): void;
  /** Shuts its connections down: what waits for the server fails, and no thread of the kernel stays in it. */
  cut(): void;
  /**
   * Gives it another size, a multiple of its block size. Requests that wait for a server can hold that up: only while it
   * answers. @throws KernelError 'system' or 'time-limit'
   */
  resize(sizeBytes: number): Promise<void>;
  /** From now on the kernel disconnects it when its last opener closes it. Absent by ioctl. */
  disconnectOnClose?(): Promise<void>;
  /**
   * `end` resolves when nobody in this process serves its connections any more: so that is seen when they are lost, which nobody has to
   * look for. Absent by ioctl, which tells it.
   */
  servedUntil?(end: Promise<unknown>): void;
  /** Leaves it to the kernel: this process has no part in it any more, and may end. Absent where it has to stay. */
  leave?(): void;
}

/** The connections of a device that can be given others. */
export interface DeviceLink {
  /** From now on the device stays when its connections are lost: the caller replaces them, or disconnects the device. */
  takeOver(): void;
  /**
   * Whether a device whose connections are lost is ours no more, because somebody has disconnected it. That takes a moment,
   * which this waits for.
   */
  isGone(): Promise<boolean>;
  /** How many of its connections are lost: nothing can be sent or received on them any more. */
  lost(): 'none' | 'some' | 'all';
  /** Whether what was sent on one of them does not reach the other side, as far as TCP knows. */
  isUnheard(): boolean;
  /**
   * Shuts those of its connections down on which TCP has sent again for so long, and heard nothing; answers whether there were
   * any. A server that is only slow is heard. To be asked again and again.
   */
  cutUnheard(limitMs: number): boolean;
  /**
   * Gives the device `socket` in the place of a connection that is lost, and answers that one's fd, which may be closed now;
   * the fd stays the caller's. Absent where there is no such device any more: then nobody has `socket`. It may be lost in
   * its turn, for whoever read from the old one may end it too.
   */
  replace(socket: number): Promise<number | undefined>;
  /** While all are lost: what waits for another one fails soon, and what comes at once, until another is offered. */
  failRequests(): Promise<void>;
  /** Another process may have made them fail: that ends with the next offer, too. */
  mayFailRequests(): void;
}

/** 0, or −errno where the kernel gives a reason; 0 is also what a server that went away ends with. */
export interface DeviceEnd {
  readonly result: number;
  /** By netlink: it was disconnected by the close of its last user, or by another program. */
  readonly byOther?: true;
}

/**
 * Sets a free device up and starts it, each step with its undo on `undo`. Returns when sysfs shows it with its size. By
 * netlink a device that does not exist is made, and stays when it is down.
 *
 * @throws KernelError 'not-root', 'no-module', 'no-device', 'busy', 'refused', 'time-limit' or 'system'
 */
export async function connectDevice(choice: DeviceChoice, setup: DeviceSetup, undo: UndoStack): Promise<NbdDevice> {
  const { device, kernelApi } = choice;
  requireRoot(device === undefined ? 'attach a device' : `attach /dev/${device}`);
  requireNbd();
  if (device !== undefined) requireFree(device);
  checkSetup(setup);
  const family = await nbdFamily(kernelApi, undo);
  if (device !== undefined && (family === undefined || deviceState(device).exists)) requireDevice(device);
  if (family !== undefined) return connectByNetlink(choice, setup, undo, family);
  for (const [asked, what] of [
    [choice.identifier !== undefined, 'an identifier'],
    [choice.destroyOnDisconnect === true, 'to destroy a device'],
  ] as const) {
    if (asked) throw new KernelError('refused', `${what} needs netlink: ${noFamily}`);
  }
  if (device === undefined)
    throw new KernelError('no-netlink', `the kernel chooses a device only by netlink: ${noFamily}`);
  return connectByIoctl(device, setup, undo);
}

const noFamily =
  'this network namespace, or this kernel, has no netlink for nbd; name a device and use --kernel-api=ioctl';

/** Whether a device can be set up by netlink, here and now. */
export async function hasNetlink(): Promise<boolean> {
  const family = await NbdFamily.find().catch(() => undefined);
  family?.close();
  return family !== undefined;
}

/** The interface to set the device up by; absent is ioctl. */
async function nbdFamily(kernelApi: KernelApi, undo: UndoStack): Promise<NbdFamily | undefined> {
  if (kernelApi === 'ioctl') return undefined;
  const family = await undo.step(
    'look for netlink',
    async () => {
      try {
        return await NbdFamily.find();
      } catch (error) {
        if (kernelApi === 'netlink') throw error;
        return undefined; // ioctl works without it
      }
    },
    (found) => found?.close(),
  );
  if (family === undefined && kernelApi === 'netlink') throw new KernelError('refused', noFamily);
  return family;
}

/**
 * Flushes and disconnects a device that another process set up. It opens the device and can wait for a server for ever,
 * out of any signal's reach: for a process of its own. With `force` a failed flush is passed over.
 */
export function disconnectForeignDevice(name: string, force: boolean): void {
  requireRoot(`detach /dev/${name}`);
  requireDevice(name);
  disconnectByIoctl(name, force);
}

/** A device of ours without a process: what it carries, and the mark of whose it was (device-owner.ts), mostly the same. */
export interface Leftover {
  readonly backend: string | undefined;
  readonly owner: string | undefined;
}

/**
 * Disconnects what a process of ours left, dead or gone as it should; what carries another text by now stays. It does not open the device, for an open waits for what is on its way to a server that is gone. It can wait for one that is there, and
 * does not read, for ever, out of any signal's reach and with the lock of generic netlink: for a process of its own.
 */
export async function disconnectLeftover(name: string, { backend, owner }: Leftover): Promise<void> {
  requireRoot(`detach /dev/${name}`);
  const family = await NbdFamily.find();
  if (deviceBackend(name) !== backend) return;
  if (!isOfDeadProcess(owner) && !isUnattended(owner)) return;
  if (family === undefined) return disconnectByIoctl(name, true);
  const reply = await family.disconnect(deviceIndex(name));
  family.close();
  if (reply.errno !== 0) throw systemError(`disconnect /dev/${name}`, reply.errno);
  await dropPartitions(name);
}

/** Attaching and detaching take CAP_SYS_ADMIN, which root has. @throws KernelError 'not-root' */
export function requireRoot(doing: string): void {
  const effective = /^CapEff:\t([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  if (effective !== undefined && (BigInt(`0x${effective}`) >> BigInt(CAP_SYS_ADMIN)) % 2n === 1n) return;
  throw new KernelError('not-root', `only root can ${doing}; try sudo`);
}

/** By sysfs alone: opening an idle device to learn its state can hang, and keeps others from using it. */
function requireFree(name: string): void {
  const { pid, sizeBytes } = deviceState(name);
  if (pid === undefined && sizeBytes === 0) return;
  const by = pid === undefined ? `has ${sizeBytes} bytes` : `is attached by process or thread ${pid}`;
  throw new KernelError('busy', `/dev/${name} is not free: it ${by}; detach it first, or take another device`);
}

function checkSetup({ sizeBytes, blockSizeBytes, flags, sockets, requestBytesMax }: DeviceSetup): void {
  invariant(sockets.length > 0, 'a device has a connection');
  if (sockets.length > 1 && (flags & NBD_FLAG_CAN_MULTI_CONN) === 0) {
    throw new KernelError('refused', `the server allows one connection, not ${sockets.length}`);
  }
  if (blockSizeBytes < SECTOR_BYTES || !Number.isInteger(Math.log2(blockSizeBytes))) {
    throw new KernelError(
      'refused',
      `a device cannot have blocks of ${blockSizeBytes} bytes: a power of two from 512 on`,
    );
  }
  if (sizeBytes <= 0 || !Number.isSafeInteger(sizeBytes) || sizeBytes % blockSizeBytes !== 0) {
    throw new KernelError('refused', `a device of blocks of ${blockSizeBytes} bytes cannot have ${sizeBytes} bytes`);
  }
  if (requestBytesMax !== undefined && requestBytesMax < blockSizeBytes) {
    throw new KernelError(
      'refused',
      `requests of at most ${requestBytesMax} bytes do not hold a block of ${blockSizeBytes}`,
    );
  }
}
