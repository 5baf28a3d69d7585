import type { NbdDevice } from '../kernel/nbd-device.js';
import { deviceUsers } from '../kernel/proc.js';
import { AttachError } from './errors.js';

/** How often is looked whether something uses the device. */
const LOOK_MS = 500;

/**
 * Has the kernel disconnect a device when its last opener closes it, but not before a file system, swap or a device above
 * uses it: whoever looks at a new device, as udev does, opens and closes it. This process opens nothing.
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
      if (deviceUsers(this.#device.name).length > 0) void this.#turnOn();
    }, LOOK_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  async #turnOn(): Promise<void> {
    this.stop();
    this.#isOn = true;
    try {
      await this.#device.disconnectOnClose?.();
    } catch {
      this.#isOn = false;
      return this.start(); // the kernel did not answer; it is asked again
    }
    if (deviceUsers(this.#device.name).length === 0) this.#onUnused();
  }
}
