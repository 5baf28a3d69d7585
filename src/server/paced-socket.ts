import { readSync } from 'node:fs';
import { constants } from 'node:os';
import { setBlocking, setNonBlocking } from '../kernel/fd-calls.js';
import { isHungUp, limitReads, waitAnyReadable, waitReadable } from '../kernel/socket-calls.js';
import { WakeUps } from '../kernel/wake-ups.js';
import type { Busyness } from './activity.js';
import { receiveBytes, receiveIfAny } from './socket-bytes.js';

const { EAGAIN } = constants.errno;

/** The mode is thought over after so many waits. */
const WAITS_A_PERIOD = 32;
/** Tries before a spinning worker sleeps: about what a sleep and its wake-up cost. */
const TRIES_MAX = 20;
/** More requests than that at a time: whoever sends so many ahead does not wait for each answer. */
const REQUESTS_AT_A_TIME_MAX = 2;
/** To be awake must make a period so much shorter. */
const WORTH = 0.9;
/**
 * Being awake is given up after so many periods that it did not make shorter, less those that it did: the first of a try pass
 * while the scheduler moves client and worker apart, and any may be stretched by another process.
 */
const BAD_PERIODS_MAX = 4;
/** Before a try, at least; the shortest of the last of them counts. */
const PERIODS_ASLEEP = 3;
/** While it pays, the other way is tried again after so many periods: the machine's load changes. */
const PERIODS_AWAKE = 256;
/** After a try that did not pay, so many periods pass before the next, twice as many each time. */
const PATIENCE_PERIODS_MAX = 1024;
/** A connection that is silent for so long is idle. */
const IDLE_SECONDS = 1;

/** What is read of a bell: how often it was rung says nothing. */
const rung = new Uint8Array(64);

/** Tells whether there is a core to spare. */
export type Spare = Pick<Busyness, 'hasCoreToSpare'>;

/**
 * A connection's socket, waited on in the way that costs least. Asleep in a blocking read, or, for a client that waits for
 * each answer while a core has nothing else to do, awake: the read is tried some times before the worker sleeps. To wake
 * a sleeping thread can take longer than such a client's whole turn; but where the scheduler runs the client on the very
 * core that waits for it, and with more busy workers than spare cores, being awake takes time from those who have work.
 * So both are tried, and timed.
 */
export class PacedSocket {
  readonly #fd: number;
  readonly #busyness: Spare;
  readonly #bellFd: number;
  readonly #onIdle: () => boolean;
  readonly #clockMs: () => number;
  readonly #wakeUps = new WakeUps();
  #spinning = false;
  /** The socket's own state: whether its reads and writes wait. */
  #blocking = true;
  #mayBlock = true;
  #waits = 0;
  #requests = 0;
  #misses = 0;
  #glances = 0;
  /** 0: the last period was not compared, so that nobody knows when this one began. */
  #periodBegan = 0;
  /** The shortest of the last PERIODS_ASLEEP periods that it slept. */
  #asleepMs = Number.POSITIVE_INFINITY;
  #badPeriods = 0;
  #patience = PERIODS_ASLEEP;
  /** Until the other way is tried. */
  #periodsToGo = PERIODS_ASLEEP;

  /**
   * `onIdle` is called when the client has been silent for a second, and from then on whenever a byte is put into the pipe that is
   * read at `bellFd` (below 0: there is none), before the wait goes on; or does not, if it answers true. Tests pass a clock
   * (milliseconds) of their own.
   */
  constructor(
    fd: number,
    busyness: Spare,
    bellFd: number,
    onIdle: () => boolean,
    clockMs: () => number = () => performance.now(),
  ) {
    this.#fd = fd;
    this.#busyness = busyness;
    this.#bellFd = bellFd;
    this.#onIdle = onIdle;
    this.#clockMs = clockMs;
    limitReads(fd, IDLE_SECONDS);
  }

  /**
   * Waits for bytes and reads what is there, like receiveBytes; −EAGAIN when `onIdle` ended the wait. `answered` is the
   * number of requests that were answered since the last call.
   */
  receive(target: Uint8Array, at: number, length: number, answered: number): number {
    this.#waits += 1;
    this.#requests += answered;
    if (this.#waits === WAITS_A_PERIOD) this.#thinkOver();
    const tries = this.#spinning ? TRIES_MAX : 1;
    for (let tried = 0; tried < tries; tried += 1) {
      const received = this.#blocking
        ? receiveBytes(this.#fd, target, at, length)
        : receiveIfAny(this.#fd, target, at, length);
      if (received !== -EAGAIN) return received;
    }
    this.#misses += 1;
    return this.#receiveOnceReadable(target, at, length);
  }

  /** Reads what is there, and does not wait: −EAGAIN where there is nothing. */
  receiveIfThere(target: Uint8Array, at: number, length: number): number {
    this.#glances += 1;
    this.#block(false);
    return receiveIfAny(this.#fd, target, at, length);
  }

  /** Waits for bytes as `receive` does, but no longer than until another can be read: then it answers −EAGAIN. */
  receiveUnless(secondFd: number, thirdFd: number, target: Uint8Array, at: number, length: number): number {
    // Bytes are seldom there already, and to try costs more than to look.
    for (;;) {
      const ready = waitAnyReadable(this.#fd, secondFd, thirdFd);
      if (ready !== 1) return ready === 0 ? -EAGAIN : ready;
      const received = receiveBytes(this.#fd, target, at, length);
      if (received !== -EAGAIN) return received;
    }
  }

  /** Whether the kernel was the client (there is a bell), and has left: it reads nothing any more, although somebody may keep its end. */
  get isCutOff(): boolean {
    return this.#bellFd >= 0 && isHungUp(this.#fd);
  }

  /** From here on no call of a read or a write waits; this still does. */
  neverBlock(): void {
    this.#mayBlock = false;
    this.#block(false);
  }

  /** The socket waits again, and the thread wakes, as they did. */
  close(): void {
    this.#wakeUps.takeAtOnce();
    this.#mayBlock = true;
    this.#block(true);
  }

  #receiveOnceReadable(target: Uint8Array, at: number, length: number): number {
    // A blocking read that gave up has waited its second already.
    let limitMs = this.#blocking ? 0 : IDLE_SECONDS * 1_000;
    for (;;) {
      const ready = limitMs < 0 ? waitAnyReadable(this.#fd, this.#bellFd, -1) : waitReadable(this.#fd, limitMs);
      if (ready < 0) return ready;
      if (ready === 0) {
        if (limitMs < 0) readSync(this.#bellFd, rung);
        if (this.#onIdle()) return -EAGAIN;
        limitMs = -1;
        continue;
      }
      const received = receiveBytes(this.#fd, target, at, length);
      if (received !== -EAGAIN) return received;
    }
  }

  #thinkOver(): void {
    const deep = this.#requests > this.#waits * REQUESTS_AT_A_TIME_MAX;
    // Who sends many ahead sends more of them meanwhile, which are then answered at one wake-up.
    if (deep) this.#wakeUps.defer();
    else this.#wakeUps.takeAtOnce();
    if (!deep && this.#busyness.hasCoreToSpare()) this.#compare();
    else this.#sleepOn();
    this.#block(!this.#spinning && this.#glances === 0);
    this.#waits = 0;
    this.#requests = 0;
    this.#misses = 0;
    this.#glances = 0;
  }

  #compare(): void {
    const now = this.#clockMs();
    const periodMs = now - this.#periodBegan;
    const isWhole = this.#periodBegan > 0;
    this.#periodBegan = now;
    if (!isWhole) return;
    this.#periodsToGo -= 1;
    if (!this.#spinning) {
      // Client and worker may have been on one core before, where to sleep is faster than anything.
      if (this.#periodsToGo < PERIODS_ASLEEP) this.#asleepMs = Math.min(periodMs, this.#asleepMs);
      if (this.#periodsToGo <= 0) this.#spin(true, PERIODS_AWAKE);
      return;
    }
    const pays = this.#misses * 4 <= this.#waits && periodMs <= this.#asleepMs * WORTH;
    this.#badPeriods = Math.max(0, this.#badPeriods + (pays ? -1 : 1));
    if (this.#badPeriods === BAD_PERIODS_MAX) {
      this.#patience = Math.min(this.#patience * 2, PATIENCE_PERIODS_MAX);
      this.#spin(false, this.#patience);
    } else if (this.#periodsToGo <= 0) {
      this.#patience = PERIODS_ASLEEP;
      this.#spin(false, this.#patience);
    }
  }

  #sleepOn(): void {
    this.#periodBegan = 0;
    this.#spin(false, PERIODS_ASLEEP);
  }

  #spin(spinning: boolean, periods: number): void {
    this.#spinning = spinning;
    this.#badPeriods = 0;
    if (!spinning) this.#asleepMs = Number.POSITIVE_INFINITY;
    this.#periodsToGo = periods;
  }

  #block(blocking: boolean): void {
    if (blocking === this.#blocking || (blocking && !this.#mayBlock)) return;
    this.#blocking = blocking;
    if (blocking) setBlocking(this.#fd);
    else setNonBlocking(this.#fd);
  }
}
