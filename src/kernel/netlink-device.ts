import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { invariant } from '../base/invariant.js';
import { dropPartitions } from './device-child.js';
import { deviceIndex } from './device-name.js';
import { KernelError } from './errors.js';
import { shutdownFd } from './fd-calls.js';
import type { DeviceEnd, DeviceLink, DeviceSetup, NbdDevice } from './nbd-device.js';
import type { NbdFamily } from './nbd-family.js';
import type { DeviceChange, NetlinkDeviceSetup } from './nbd-messages.js';
import { NBD_CFLAG_DISCONNECT_ON_CLOSE } from './netlink-abi.js';
import { describeReply } from './netlink-socket.js';
import { sendAgainSoon } from './resend.js';
import { hasRoom, isHungUp, retransmittingMs } from './socket-calls.js';
import { deviceBackend, deviceState, waitFor } from './sysfs.js';
import { Unheard } from './unheard.js';
import { within } from './within.js';

const { EINVAL } = constants.errno;

/** How long it takes at most to see that every connection is gone, where nobody tells. */
const watchMs = 1_000;
/** A server that leaves its socket full gets so long to read the goodbye; meanwhile nobody else's netlink is answered. */
const goodbyeLimitMs = 1_000;
const retryMs = 1_000;
/** When the kernel disconnects a device, its connections end first, and what it carries goes so much later at most. */
const settleLimitMs = 250;
const settlePollMs = 10;
/** How long an undo waits for the end. */
const endLimitMs = 10_000;
/**
 * When another connection is offered to the kernel, from the first time on. It does not tell whether it took it: not if it
 * did not see yet that the old one is lost (nbd_reconnect_socket), which is a matter of moments. Offered again, the one
 * connection of a device that was taken stays as it is.
 */
const offerPausesMs = [0, 50, 200, 1_000];
/** Of several connections a second might be lost by then, and the same one be put there too; so it is offered once, late. */
const onlyOfferPausesMs = [1_000];

/** A device that netlink set up. The kernel owns its connections; this process has a copy of each, and looks after them. */
export class NetlinkDevice implements NbdDevice {
  readonly name: string;
  readonly kernelApi = 'netlink';
  readonly ended: Promise<DeviceEnd>;
  readonly link: DeviceLink | undefined;
  readonly #family: NbdFamily;
  readonly #setup: DeviceSetup;
  #sockets: readonly number[];
  readonly #identifier: string;
  #clientFlags: number;
  readonly #watch: NodeJS.Timeout;
  readonly #resolveEnded: (end: DeviceEnd) => void;
  #ending: Promise<void> | undefined;
  /** The family answers one question at a time. */
  #asking: Promise<unknown> | undefined;
  readonly #unheard = new Unheard();
  /** Or may: another process may have told the kernel. */
  #failsRequests = false;
  #isTakenOver = false;

  constructor(
    name: string,
    family: NbdFamily,
    setup: DeviceSetup,
    { identifier, clientFlags }: Pick<NetlinkDeviceSetup, 'identifier' | 'clientFlags'>,
  ) {
    this.name = name;
    this.#family = family;
    this.#setup = setup;
    this.#sockets = setup.sockets;
    this.#identifier = identifier;
    this.#clientFlags = clientFlags;
    let resolveEnded: (end: DeviceEnd) => void = () => {};
    this.ended = new Promise((resolve) => {
      resolveEnded = resolve;
    });
    this.#resolveEnded = resolveEnded;
    // Without its connections a device is of no use, and what waits for them would wait for ever: it ends. One that is taken
    // over gets others, as long as nobody else has disconnected it.
    this.#watch = setInterval(() => this.#look(), watchMs);
    this.link = setup.deadTimeoutSeconds === undefined ? undefined : this.#linkOf();
  }

  disconnect(): void {
    this.#ending ??= this.#end();
  }

  cut(): void {
    for (const socket of this.#sockets) shutdownFd(socket);
  }

  servedUntil(end: Promise<unknown>): void {
    // What ends at a request's limit is lost while whoever serves may wait for a disk, and hear of nothing.
    if (this.#setup.requestTimeoutSeconds === 0) clearInterval(this.#watch);
    void end.then(() => this.#look());
  }

  /** All flags are told at once: one that is left out is taken back (nbd_genl_reconfigure). */
  async disconnectOnClose(): Promise<void> {
    this.#clientFlags |= NBD_CFLAG_DISCONNECT_ON_CLOSE;
    await this.#reconfigure({ clientFlags: this.#clientFlags });
  }

  async resize(sizeBytes: number): Promise<void> {
    const { blockSizeBytes } = this.#setup;
    if (!(await this.#reconfigure({ sizeBytes, blockSizeBytes }))) throw goneError(this.name);
    await waitFor(
      `/dev/${this.name} to have its new size`,
      endLimitMs,
      () => deviceState(this.name).sizeBytes === sizeBytes,
    );
  }

  leave(): void {
    clearInterval(this.#watch);
    this.#family.close();
  }

  /** Ends a device that is up. @throws KernelError 'time-limit' if the kernel does not let go */
  async stop(): Promise<void> {
    this.disconnect();
    if ((await within(this.ended, endLimitMs)) !== 'late') return;
    throw new KernelError('time-limit', `the kernel did not let go of /dev/${this.name} in ${endLimitMs / 1000} s`);
  }

  #linkOf(): DeviceLink {
    return {
      takeOver: () => {
        this.#isTakenOver = true;
      },
      isGone: () => this.#isGone(),
      lost: () => (this.#isLost() ? 'all' : this.#sockets.some(isHungUp) ? 'some' : 'none'),
      isUnheard: () => this.#sockets.some((socket) => retransmittingMs(socket) !== undefined),
      cutUnheard: (limitMs) => {
        const unheard = this.#unheard.look(this.#sockets, limitMs);
        for (const socket of unheard) shutdownFd(socket);
        return unheard.length > 0;
      },
      replace: (socket) => this.#replace(socket),
      failRequests: () => this.#failRequests(),
      mayFailRequests: () => {
        this.#failsRequests = true;
      },
    };
  }

  #look(): void {
    if (this.#isLost() && !(this.#isTakenOver && this.#mayBeOurs())) this.disconnect();
  }

  #isLost(): boolean {
    return this.#sockets.every(isHungUp);
  }

  async #replace(socket: number): Promise<number | undefined> {
    const failedRequests = this.#failsRequests;
    if (failedRequests) {
      const { requestTimeoutSeconds, deadTimeoutSeconds = 0 } = this.#setup;
      await this.#reconfigure({ requestTimeoutSeconds, deadTimeoutSeconds });
      this.#failsRequests = false;
    }
    const lost = this.#sockets.find(isHungUp);
    invariant(lost !== undefined, 'a connection that is lost is replaced');
    const isTaken = () => this.#sockets.includes(socket);
    try {
      for (const pauseMs of this.#sockets.length === 1 ? offerPausesMs : onlyOfferPausesMs) {
        await sleep(pauseMs);
        if (this.#ending !== undefined || isHungUp(socket)) break;
        if ((await this.#reconfigure({ socket })) && !isTaken()) {
          this.#sockets = this.#sockets.map((each) => (each === lost ? socket : each));
        }
      }
    } catch (error) {
      // It is in the kernel's hands, whatever it said later. If it may or may not be, it is to be of no use there.
      if (!isTaken()) {
        shutdownFd(socket);
        throw error;
      }
    }
    // Without that the next loss is a longer pause, and no more.
    if (failedRequests) await sendAgainSoon(this.#setup, this.name).catch(() => {});
    return isTaken() ? lost : undefined;
  }

  /** A request limit ends what was sent, and without a time to wait for another connection that fails (nbd_xmit_timeout). */
  async #failRequests(): Promise<void> {
    this.#failsRequests = await this.#reconfigure({ requestTimeoutSeconds: 1, deadTimeoutSeconds: 0 });
  }

  /**
   * Answers false when the device is not ours any more, or not for long. What the kernel does not answer is told it again;
   * but for a socket, which could come to have two places.
   */
  async #reconfigure(change: DeviceChange): Promise<boolean> {
    for (; this.#ending === undefined; await sleep(retryMs)) {
      if (!this.#isOurs()) this.disconnect();
      else {
        const asking = this.#family
          .reconfigure(deviceIndex(this.name), this.#identifier, change)
          .catch(() => undefined);
        this.#asking = asking;
        const reply = await asking;
        if (reply?.errno === 0) return true;
        if (reply?.errno === EINVAL && this.#isOurs() && (await this.#isDisconnected())) this.disconnect();
        else if (reply !== undefined && this.#isOurs()) {
          throw new KernelError('system', `the kernel refuses to change /dev/${this.name}: ${describeReply(reply)}`);
        }
        if (reply === undefined && change.socket !== undefined) {
          throw new KernelError('system', `the kernel does not tell whether it took a connection of /dev/${this.name}`);
        }
      }
    }
    return false;
  }

  /** Whether another program has disconnected it, and somebody uses it still: then it keeps its mark, and refuses every change. */
  async #isDisconnected(): Promise<boolean> {
    const asking = this.#family.reconfigure(deviceIndex(this.name), this.#identifier, {}).catch(() => undefined);
    this.#asking = asking;
    return (await asking)?.errno === EINVAL;
  }

  async #end(): Promise<void> {
    clearInterval(this.#watch);
    const byOther = this.#isLost() && (await this.#isGone());
    await this.#asking;
    // A sender in a full socket holds the lock that the goodbye waits for, and that one holds all of generic netlink up.
    if (!this.#sockets.every(hasRoom)) this.cut();
    // What is up and ours is ours to end: a failure (no memory for the thread) is no reason to leave it.
    while (!(await this.#isDown())) await sleep(retryMs);
    this.cut();
    await dropPartitions(this.name);
    this.#resolveEnded({ result: 0, ...(byOther && { byOther }) });
  }

  /** Whoever disconnected the device before us may have made room for another program's: that one is not touched. */
  async #isDown(): Promise<boolean> {
    let cutLater: NodeJS.Timeout | undefined;
    const onBegin = () => {
      cutLater = setTimeout(() => this.cut(), goodbyeLimitMs);
    };
    try {
      if (!this.#isOurs()) return true;
      return (await this.#family.disconnect(deviceIndex(this.name), onBegin)).errno === 0;
    } catch {
      return false;
    } finally {
      clearTimeout(cutLater);
    }
  }

  #isOurs(): boolean {
    return deviceBackend(this.name) === this.#identifier;
  }

  async #isGone(): Promise<boolean> {
    for (const end = performance.now() + settleLimitMs; this.#mayBeOurs(); await sleep(settlePollMs)) {
      if (performance.now() > end) return false;
    }
    return true;
  }

  #mayBeOurs(): boolean {
    try {
      return this.#isOurs();
    } catch {
      return true; // it is looked at again
    }
  }
}

function goneError(name: string): KernelError {
  return new KernelError('system', `/dev/${name} is not ours any more`);
}
