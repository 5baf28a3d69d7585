import type { Image } from '../image/image.js';
import { NBD_CMD_READ } from '../protocol/constants.js';
import { emptyRequest, payloadBytes } from '../protocol/request.js';
import { checkRequest, type ExportRules } from '../protocol/request-rules.js';
import type { Reads } from './reads.js';
import type { RequestInput } from './request-input.js';

/** While reads are quick, one of so many is timed: on some machines to read the clock is a system call. */
const READS_A_SAMPLE = 16;
/** At most, where quick ones are slow enough to be taken for a disk's: twice as many each time that they were. */
const READS_A_SAMPLE_MAX = 512;
/** After a slow sample so many are timed, each, and looked at whether they wait for a disk. */
const READS_SUSPECTED = 16;
/** After a read that has waited for a disk so many are, before they are taken for quick again. */
const READS_TIMED = 64;
/** A read of cached data takes less than this, but on a slow machine, or where another thread had its processor meanwhile. */
const SLOW_MS = 0.1;
const SLOW_MS_A_BYTE = 0.0005 / 1_024;
/** After so many looks in vain for others behind a read by itself, one of so many such reads looks again. */
const LOOKS_IN_VAIN = 4;
const READS_A_LOOK = 16;

/**
 * Knows whether the data that are read come from a disk, and then announces large reads that already wait in the input to
 * the image before each one is done: the disk sees all of them at once, without a thread more.
 */
export class ColdReads {
  isCold = false;
  readonly #image: Image;
  readonly #rules: ExportRules;
  readonly #input: RequestInput;
  readonly #reads: Reads;
  readonly #sleeps: () => number;
  readonly #ahead = emptyRequest();
  #sampled = 0;
  #readsASample = READS_A_SAMPLE;
  #timed = 0;
  #isSuspected = false;
  /** What `sleeps` told when nothing but reads had come since; below 0: unknown. */
  #sleptBefore = -1;
  #inVain = 0;
  #sinceLook = 0;

  /** `sleeps` tells how often this thread has waited for anything but a processor: what tells a disk from the scheduler. */
  constructor(image: Image, rules: ExportRules, input: RequestInput, reads: Reads, sleeps: () => number) {
    this.#sleeps = sleeps;
    this.#image = image;
    this.#rules = rules;
    this.#input = input;
    this.#reads = reads;
  }

  /** Asked once a READ: whether it is to be timed. */
  isTimed(): boolean {
    if (this.#image.isDirect) {
      this.isCold = true;
      return true;
    }
    if (this.#timed > 0) {
      this.#timed -= 1;
      return true;
    }
    this.isCold = false;
    if (this.#isSuspected) this.#readsASample = Math.min(this.#readsASample * 2, READS_A_SAMPLE_MAX);
    this.#isSuspected = false;
    this.#sampled = (this.#sampled + 1) % this.#readsASample;
    return this.#sampled === 0;
  }

  /** Right before a READ that is timed: nothing else will be waited for until `wasSlow`. */
  begins(): void {
    if (this.#sleptBefore < 0 && this.#timed > 0) this.#sleptBefore = this.#sleeps();
  }

  /** Takes the time of a READ; answers whether a disk was waited for. The first that takes long only has the next ones looked at. */
  wasSlow(elapsedMs: number, lengthBytes: number): boolean {
    if (elapsedMs < SLOW_MS + lengthBytes * SLOW_MS_A_BYTE) return false;
    if (this.#image.isDirect) return true;
    const before = this.#sleptBefore;
    this.#sleptBefore = this.#sleeps();
    if (before < 0) this.#suspect();
    else if (this.#sleptBefore > before) this.sawDisk();
    else if (!this.isCold) this.#timed = 0; // whatever was suspected
    return before >= 0 && this.#sleptBefore > before;
  }

  /** A disk is waited for. */
  sawDisk(): void {
    this.#isSuspected = false;
    this.#readsASample = READS_A_SAMPLE;
    this.#timed = READS_TIMED;
    this.isCold = true;
  }

  /** The client, or what came between reads, may have been waited for. */
  mayHaveSlept(): void {
    this.#sleptBefore = -1;
  }

  /** Whether the client seems to wait for each answer: to announce such a read, and look for others meanwhile, is for nothing. */
  isLonely(): boolean {
    if (this.#inVain < LOOKS_IN_VAIN) return false;
    this.#sinceLook = (this.#sinceLook + 1) % READS_A_LOOK;
    return this.#sinceLook !== 0;
  }

  /** Whether there were others when they were looked for. */
  looked(found: boolean): void {
    this.#inVain = found ? 0 : this.#inVain + 1;
  }

  /**
   * Announces the READ whose turn it is and every one behind it, those that were announced already aside, and those that will be
   * begun beside others, if any can be (`begins`).
   */
  announce(begins: boolean): void {
    const input = this.#input;
    let at = Math.max(input.lookedAt, input.start - input.headerBytes);
    while (input.holdsHeader(at) && input.decode(at, this.#ahead)) {
      this.#announceOne(begins);
      at += input.headerBytes + payloadBytes(this.#ahead, this.#rules.replyStyle);
    }
    input.lookedAt = at;
  }

  /** To look costs a system call a read, on a slow machine a fifth of what such a read takes. */
  #suspect(): void {
    this.#isSuspected = !this.isCold;
    this.#timed = this.isCold ? READS_TIMED : READS_SUSPECTED;
  }

  #announceOne(begins: boolean): void {
    const ahead = this.#ahead;
    if (ahead.type !== NBD_CMD_READ || checkRequest(ahead, this.#rules) !== 0) return;
    if (begins && this.#reads.isBeginnable(ahead)) return;
    this.#image.cache(ahead.offsetBytes, ahead.lengthBytes);
  }
}
