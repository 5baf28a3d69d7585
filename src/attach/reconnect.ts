import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../base/message-of.js';
import type { DeviceLink, NbdDevice } from '../kernel/nbd-device.js';
import { waitFor } from '../kernel/sysfs.js';
import type { OnAttachEvent } from './attach-event.js';
import { Probes } from './probes.js';
import { Standstill } from './standstill.js';

/** How often the connections are looked at. */
const LOOK_MS = 250;
/** Pauses between attempts to connect: the first follows at once, each other later than the one before. */
const PAUSE_MS_MIN = 100;
const PAUSE_MS_MAX = 1_000;
/** A connection that lived for less is no reason to be in a hurry with the next. */
const STABLE_MS = 10_000;
/** Requests that stand still for so long may be slow, or their server may be gone: a second connection tells. */
const SILENT_MS = 5_000;
/** How long whoever wants another connection waits for it. */
const CONNECT_AGAIN_LIMIT_MS = 30_000;
/** What a server that answers again gets to answer on the connection that it was silent on, unless that does not reach it. */
const GRACE_MS = 1_500;

/** What is known of the connections of a device that somebody watches over. */
export interface LinkStatus {
  /** As long as one of several works, 'connected'. 'dead': it stands, but the server answers nobody; 'reconnecting': it is lost, and another is looked for. */
  readonly state: 'connected' | 'dead' | 'reconnecting';
  /** For how long it has been so. */
  readonly seconds: number;
  /** How often a lost connection was replaced. */
  readonly reconnects: number;
}

/** Where connections come from. */
export interface ConnectionSource {
  /** What the server is called in messages. */
  readonly server: string;
  /** Another connection of the same export, ready for the kernel. @throws why there is none; to be tried again */
  renew(stop: AbortSignal): Promise<number>;
  /** Whether the server answers on a second connection, in its time limit. */
  isAnswering(stop: AbortSignal): Promise<boolean>;
  /** The device has no part in `socket` any more, or never had. */
  discard(socket: number): void;
}

export interface Patience {
  /** A silent server counts as lost after so long; 0 is at once. */
  readonly deadTimeoutSeconds: number;
  /** So long another connection is looked for; absent is without limit. */
  readonly retryLimitSeconds: number | undefined;
}

/**
 * Watches over the connections of a device. When one is lost, by the word of the kernel, or because the server is silent on
 * it and on a second one, another is looked for until there is one, and handed to the kernel.
 */
export class Supervisor {
  readonly #device: NbdDevice;
  readonly #link: DeviceLink;
  readonly #source: ConnectionSource;
  readonly #patience: Patience;
  readonly #tell: (text: string) => void;
  readonly #standstill: Standstill;
  readonly #ended = new AbortController();
  readonly #probes: Probes;
  #state: LinkStatus['state'] = 'connected';
  #since = performance.now();
  #reconnects = 0;
  #watching: Promise<void> | undefined;
  #pauseMs = 0;
  /** Whether requests fail now (DeviceLink.failRequests). */
  #isFailing = false;

  constructor(
    device: NbdDevice,
    link: DeviceLink,
    source: ConnectionSource,
    patience: Patience,
    onEvent: OnAttachEvent,
  ) {
    this.#device = device;
    this.#link = link;
    this.#source = source;
    this.#patience = patience;
    this.#standstill = new Standstill(device.name);
    this.#probes = new Probes((stop) => source.isAnswering(stop), this.#ended.signal);
    this.#tell = (text) => onEvent({ kind: 'notice', text });
    void device.ended.then(() => this.#ended.abort(new Error('the device has ended')));
  }

  status(): LinkStatus {
    const seconds = Math.floor((performance.now() - this.#since) / 1_000);
    const isSeen = this.#state !== 'connected' || !this.#isCutOff();
    return {
      state: isSeen ? this.#state : 'reconnecting',
      seconds: isSeen ? seconds : 0,
      reconnects: this.#reconnects,
    };
  }

  /** Watches until the device ends, or `stop`. */
  start(): void {
    this.#link.takeOver();
    this.#watching = this.#watch();
  }

  /**
   * Gives the connection up, and returns when there is another; the requests that it does not answer any more are sent again.
   *
   * @throws KernelError 'time-limit'
   */
  async connectAgain(): Promise<void> {
    const before = this.#reconnects;
    this.#giveUpConnection('the connection is made again, as it was asked for');
    const isThere = () => this.#reconnects > before && this.#link.lost() === 'none';
    await waitFor(`another connection to ${this.#source.server}`, CONNECT_AGAIN_LIMIT_MS, isThere);
  }

  /** Afterwards no connection changes hands any more. */
  async stop(): Promise<void> {
    this.#ended.abort(new Error('nobody watches any more'));
    await this.#watching;
  }

  async #watch(): Promise<void> {
    for (const ended = this.#ended.signal; !ended.aborted; await pause(LOOK_MS, ended)) {
      try {
        if (this.#link.lost() === 'none') this.#lookForSilence();
        else if (await this.#link.isGone()) return this.#device.disconnect();
        else await this.#reconnect();
      } catch (error) {
        this.#tell(messageOf(error)); // whatever it is, the device needs somebody who goes on
      }
    }
  }

  async #reconnect(): Promise<void> {
    const { server } = this.#source;
    const { deadTimeoutSeconds, retryLimitSeconds = Number.POSITIVE_INFINITY } = this.#patience;
    const wasSilentMs = this.#state === 'dead' ? performance.now() - this.#since : 0;
    if (performance.now() - this.#since > STABLE_MS) this.#pauseMs = 0;
    let lostAt = performance.now() - wasSilentMs;
    const downSeconds = () => (performance.now() - lostAt) / 1_000;
    const tell = this.#tellOnce();
    const tellLoss = this.#tellOnce();
    const tellFailure = this.#tellOnce();
    const look = () => {
      if (this.#state === 'reconnecting') return;
      if (!this.#isCutOff()) return tellLoss(`a connection to ${server} is lost; connecting again`);
      this.#become('reconnecting', `the connection to ${server} is lost; connecting again`);
      lostAt = performance.now() - wasSilentMs;
    };
    for (look(); !(await this.#isReplaced(tell)); look()) {
      if (this.#ended.signal.aborted) return;
      const isCutOff = this.#isCutOff();
      if (isCutOff && downSeconds() >= retryLimitSeconds) {
        this.#tell(`no connection to ${server} for ${retryLimitSeconds} s: giving up`);
        this.#ended.abort(new Error('given up'));
        return this.#device.disconnect();
      }
      if (isCutOff && !this.#isFailing && downSeconds() >= deadTimeoutSeconds) {
        tellFailure(`no connection to ${server} for ${deadTimeoutSeconds} s: requests fail until there is one`);
        await this.#link.failRequests();
        this.#isFailing = true;
      }
      this.#pauseMs = Math.min(Math.max(2 * this.#pauseMs, PAUSE_MS_MIN), PAUSE_MS_MAX);
      await pause(this.#pauseMs, this.#ended.signal);
    }
    this.#become('connected', `connected to ${server} again after ${downSeconds().toFixed(1)} s`);
  }

  /** No connection is left. */
  #isCutOff(): boolean {
    return this.#link.lost() === 'all';
  }

  /** What is said again and again is told the first time. */
  #tellOnce(): (text: string) => void {
    let told = '';
    return (text) => {
      if (text !== told) this.#tell(text);
      told = text;
    };
  }

  /** One attempt; why it failed is told. */
  async #isReplaced(tell: (text: string) => void): Promise<boolean> {
    let socket: number;
    try {
      socket = await this.#source.renew(this.#ended.signal);
    } catch (error) {
      if (!this.#ended.signal.aborted) tell(messageOf(error));
      return false;
    }
    this.#isFailing = false; // an offer ends that, also one that comes to nothing
    let unused: number | undefined = socket;
    try {
      const old = await this.#link.replace(socket);
      if (old !== undefined) {
        unused = old;
        this.#reconnects += 1;
      }
    } catch (error) {
      tell(messageOf(error));
    }
    this.#source.discard(unused);
    return unused !== socket && this.#link.lost() === 'none';
  }

  /**
   * A stopped server keeps its connections, and keepalive its kernel answers. Only one that answered nobody meanwhile is
   * taken for silent: a slow request must not be cut off and sent again.
   */
  #lookForSilence(): void {
    const { server } = this.#source;
    const silentMs = this.#standstill.look();
    if (silentMs < SILENT_MS) {
      this.#probes.reset();
      if (this.#state === 'dead') this.#become('connected', `${server} answers again`);
      return;
    }
    const { deadTimeoutSeconds, retryLimitSeconds = deadTimeoutSeconds } = this.#patience;
    // A firewall on the way may have forgotten this connection, while it lets others through.
    const unheardSeconds = Math.max(deadTimeoutSeconds, SILENT_MS / 1_000);
    if (this.#link.cutUnheard(unheardSeconds * 1_000)) {
      this.#tell(`${server} has acknowledged nothing on a connection for ${unheardSeconds} s`);
      return;
    }
    this.#probes.ask();
    const { isSilent, answersSince } = this.#probes;
    if (!isSilent) return;
    const limitSeconds = Math.min(deadTimeoutSeconds, retryLimitSeconds);
    if (answersSince !== undefined) {
      // After a loss TCP takes up to as long as that was until it tries again.
      const graceMs = this.#link.isUnheard() ? 0 : GRACE_MS;
      if (performance.now() - answersSince < graceMs) return;
      this.#giveUpConnection(`${server} answers again, but not on the connection`);
    } else if (silentMs >= limitSeconds * 1_000) {
      this.#giveUpConnection(`${server} has not answered for ${limitSeconds} s`);
    } else if (this.#state !== 'dead') this.#become('dead', `${server} does not answer; requests wait`);
  }

  #giveUpConnection(why: string): void {
    this.#tell(why);
    this.#probes.reset();
    this.#device.cut();
  }

  #become(state: LinkStatus['state'], text: string): void {
    this.#state = state;
    this.#since = performance.now();
    this.#tell(text);
  }
}

/** Returns early, and throws nothing, when `ended` is aborted. */
async function pause(ms: number, ended: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal: ended }).catch(() => {});
}
