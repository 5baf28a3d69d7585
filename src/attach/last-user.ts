import type { NbdDevice } from '../kernel/nbd-device.js';
import { deviceUsers } from '../kernel/proc.js';
import { AttachError, attachErrorOf } from './errors.js';
import { askOwner } from './owner.js';

/** How often is looked whether something uses the device. */
const LOOK_MS = 500;

/** The kernel is told so by netlink, where somebody else's disconnect can be in the way. */
const TELL_LIMIT_MS = 30_000;

/**
 * Has the kernel disconnect a device when its last opener closes it, but not from the beginning: whoever looks at a new device,
 * as udev does, opens and closes it. A command that goes on until what it mounts is mounted (tsnbd run) says when, and has the
 * device open meanwhile. One that has returned by then cannot: then it is looked whether a file system, swap or a device above
 * uses the device. This process, which serves it, opens nothing.
 */
export class LastUserEnds {
  readonly #device: NbdDevice;
  readonly #onUnused: () => void;
  #isOn = false;
  #timer: NodeJS.Timeout | undefined;

  /** `onUnused` is called where the last user went while the kernel was told. */
  constructor(device: NbdDevice, onUnused: () => void) {
    if (device.disconnectOnClose === undefined) {
      throw new AttachError('refused', '--disconnect-on-close needs netlink: by ioctl there is no such thing');
    }
    this.#device = device;
    this.#onUnused = onUnused;
  }

  /** Whether the kernel does it from now on. */
  get isOn(): boolean {
    return this.#isOn;
  }

  start(): void {
    this.#timer = setInterval(() => {
      if (deviceUsers(this.#device.name).length === 0) return;
      this.turnOn().catch(() => this.start()); // the kernel did not answer; it is asked again
    }, LOOK_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** @throws KernelError where the kernel does not do it */
  async turnOn(): Promise<void> {
    this.stop();
    this.#isOn = true;
    try {
      await this.#device.disconnectOnClose?.();
    } catch (error) {
      this.#isOn = false;
      throw error;
    }
    if (deviceUsers(this.#device.name).length === 0) this.#onUnused();
  }
}

/**
 * For the command that attached a device, with 'once told', and did what makes it used: who lets it go while the kernel is told
 * is not the last, for this process has it open.
 */
export async function leaveToLastUser(device: string): Promise<void> {
  const held = await process.getBuiltinModule('node:fs/promises').open(`/dev/${device}`);
  try {
    const answer = await askOwner(device, { command: 'leave to last user' }, TELL_LIMIT_MS);
    if (!answer.ok) throw attachErrorOf(answer);
  } finally {
    await held.close();
  }
}
