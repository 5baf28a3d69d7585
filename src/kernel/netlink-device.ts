import { setTimeout as sleep } from 'node:timers/promises';
import { dropPartitions } from './device-child.js';
import { deviceIndex } from './device-name.js';
import { KernelError } from './errors.js';
import { shutdownFd } from './fd-calls.js';
import type { DeviceEnd, NbdDevice } from './nbd-device.js';
import type { NbdFamily } from './nbd-family.js';
import { hasRoom, isHungUp } from './socket-calls.js';
import { deviceBackend } from './sysfs.js';

/** How long it takes at most to see that every connection is gone. */
const watchMs = 1_000;
/** A server that leaves its socket full gets so long to read the goodbye; meanwhile nobody else's netlink is answered. */
const goodbyeLimitMs = 1_000;
const retryMs = 1_000;
/** How long an undo waits for the end. */
const endLimitMs = 10_000;

/** A device that netlink set up. The kernel owns its connections; this process has a copy of each, and looks after them. */
export class NetlinkDevice implements NbdDevice {
  readonly name: string;
  readonly kernelApi = 'netlink';
  readonly ended: Promise<DeviceEnd>;
  readonly #family: NbdFamily;
  readonly #sockets: readonly number[];
  readonly #identifier: string;
  readonly #watch: NodeJS.Timeout;
  readonly #resolveEnded: (end: DeviceEnd) => void;
  #ending: Promise<void> | undefined;

  constructor(name: string, family: NbdFamily, sockets: readonly number[], identifier: string) {
    this.name = name;
    this.#family = family;
    this.#sockets = sockets;
    this.#identifier = identifier;
    let resolveEnded: (end: DeviceEnd) => void = () => {};
    this.ended = new Promise((resolve) => {
      resolveEnded = resolve;
    });
    this.#resolveEnded = resolveEnded;
    // Without its connections a device is of no use, and what waits for them would wait for ever: it ends.
    this.#watch = setInterval(() => {
      if (sockets.every(isHungUp)) this.disconnect();
    }, watchMs);
  }

  disconnect(): void {
    this.#ending ??= this.#end();
  }

  /** Ends a device that is up. @throws KernelError 'time-limit' if the kernel does not let go */
  async stop(): Promise<void> {
    this.disconnect();
    const late = new AbortController();
    const limit = sleep(endLimitMs, 'late' as const, { signal: late.signal }).catch(() => 'late' as const);
    const end = await Promise.race([this.ended, limit]);
    late.abort();
    if (end !== 'late') return;
    throw new KernelError('time-limit', `the kernel did not let go of /dev/${this.name} in ${endLimitMs / 1000} s`);
  }

  async #end(): Promise<void> {
    clearInterval(this.#watch);
    // A sender in a full socket holds the lock that the goodbye waits for, and that one holds all of generic netlink up.
    if (!this.#sockets.every(hasRoom)) this.#cut();
    // What is up and ours is ours to end: a failure (no memory for the thread) is no reason to leave it.
    while (!(await this.#isDown())) await sleep(retryMs);
    this.#cut();
    await dropPartitions(this.name);
    this.#resolveEnded({ result: 0 });
  }

  /** Whoever disconnected the device before us may have made room for another program's: that one is not touched. */
  async #isDown(): Promise<boolean> {
    let cutLater: NodeJS.Timeout | undefined;
    const onBegin = () => {
      cutLater = setTimeout(() => this.#cut(), goodbyeLimitMs);
    };
    try {
      if (deviceBackend(this.name) !== this.#identifier) return true;
      return (await this.#family.disconnect(deviceIndex(this.name), onBegin)).errno === 0;
    } catch {
      return false;
    } finally {
      clearTimeout(cutLater);
    }
  }

  #cut(): void {
    for (const socket of this.#sockets) shutdownFd(socket);
  }
}
