import { constants } from 'node:os';
import type { DirectFile } from './direct-io.js';
import { IS_FULL, NOT_BEGUN } from './image.js';
import { RangeLock } from './range-lock.js';
import { RingCalls } from './ring-calls.js';
import type { SharedFields } from './shared-layout.js';

const { EAGAIN, EINTR, EIO } = constants.errno;

/** A longer write is not taken. */
export const BEGUN_BYTES_MAX = 1_048_576;
/** Writes on their way at a time: as deep a queue as clients keep. A power of two. */
export const BEGUN_MAX = 64;
/** The memory of a write is so many bytes, or a multiple of them. */
const UNIT_BYTES = 65_536;
/** A signal, or a kernel short of memory, may interrupt; one that never lets us through is an error. */
const TRIES_MAX = 1_000;

/** What is told of a write that is done: the ticket that it was begun with, and 0 or a positive errno. */
export type OnWritten = (ticket: number, errno: number) => void;

/**
 * Writes of whole blocks past the page cache, done by the disk all at the same time, each from memory of its own. A write's
 * ticket is the first unit of that memory.
 */
export class BegunWrites {
  readonly #file: DirectFile;
  readonly #lock: RangeLock;
  /** Absent until a write is to be begun, and where the kernel does not do several at a time for one thread. */
  #calls: RingCalls | undefined;
  #isOpened = false;
  // By ticket: what is left of the write.
  readonly #offsets = new Float64Array(BEGUN_MAX);
  readonly #lengths = new Int32Array(BEGUN_MAX);
  readonly #done = new Int32Array(BEGUN_MAX);
  readonly #tries = new Int32Array(BEGUN_MAX);
  // Those that `settle` has waited for, and nobody was told of.
  readonly #settledTickets = new Int32Array(BEGUN_MAX);
  readonly #settledErrnos = new Int32Array(BEGUN_MAX);
  #settled = 0;
  readonly #onSettled = (ticket: number, errno: number) => {
    this.#settledTickets[this.#settled] = ticket;
    this.#settledErrnos[this.#settled] = errno;
    this.#settled += 1;
  };
  #told: OnWritten = () => {};
  readonly #onDone = (ticket: number, result: number) => this.#wentOn(ticket, result);
  readonly #onBroken = () => this.#giveUp();

  constructor(direct: DirectFile, shared: SharedFields) {
    this.#file = direct;
    this.#lock = new RangeLock(shared);
  }

  /** Whether none is on its way, as far as anybody knows, and all were told of. */
  get isEmpty(): boolean {
    return this.#calls === undefined || (this.#settled === 0 && this.#calls.isEmpty && !this.#calls.isBroken);
  }

  /**
   * Begins a write; `source` is free again at once. Answers its ticket; NOT_BEGUN where it is not one of whole blocks, too long,
   * overlaps one that was begun, or somebody waits for all to be done, and where the kernel does not do several writes at a
   * time for one thread; IS_FULL where one must be told first.
   */
  begin(offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    const { blockBytes } = this.#file;
    if (offsetBytes % blockBytes !== 0 || length % blockBytes !== 0 || length > BEGUN_BYTES_MAX) return NOT_BEGUN;
    const calls = this.#opened();
    if (calls === undefined || calls.isBroken || this.#lock.isAwaited) return NOT_BEGUN;
    if (this.#overlaps(offsetBytes, length)) return NOT_BEGUN;
    if (this.#settled > 0) return IS_FULL;
    const wasEmpty = calls.isEmpty;
    const ticket = calls.begin(length);
    if (ticket < 0) return IS_FULL;
    if (wasEmpty) this.#lock.share(0, Number.MAX_SAFE_INTEGER);
    const { memory } = calls;
    memory.bytes.set(source.subarray(at, at + length), memory.placeOf(ticket));
    this.#offsets[ticket] = offsetBytes;
    this.#lengths[ticket] = length;
    this.#done[ticket] = 0;
    this.#tries[ticket] = 0;
    this.#add(ticket);
    return ticket;
  }

  /** For poll(2), right after `take`: readable once a write is done that it has not told of; below 0 before the first. */
  get readableFd(): number {
    return this.#calls?.readableFd ?? -1;
  }

  /** Hands over what was begun, waits until at least `waitFor` of them are done (or all, if they are fewer), and tells of each. */
  take(waitFor: number, onWritten: OnWritten): void {
    const settled = this.#settled;
    this.#settled = 0;
    for (let index = 0; index < settled; index += 1) {
      onWritten(this.#settledTickets[index] ?? 0, this.#settledErrnos[index] ?? 0);
    }
    this.#take(Math.max(0, waitFor - settled), onWritten);
  }

  /** Waits for all of them, so that nobody waits for this worker while it waits for others; the next `take` tells of them. */
  settle(): void {
    if (!this.isEmpty) this.#take(BEGUN_MAX, this.#onSettled);
  }

  /** Gives the memory back, which the next writes take again. */
  relax(): void {
    this.#calls?.relax();
  }

  /** Of what is on its way, if there should be any, nobody is told. */
  close(): void {
    this.settle();
    this.#settled = 0;
    this.#calls?.close();
  }

  #opened(): RingCalls | undefined {
    if (!this.#isOpened) this.#calls = RingCalls.open(BEGUN_MAX, UNIT_BYTES);
    this.#isOpened = true;
    return this.#calls;
  }

  #take(waitFor: number, onWritten: OnWritten): void {
    this.#told = onWritten;
    this.#calls?.take(waitFor, this.#onDone, this.#onBroken);
  }

  #add(ticket: number): void {
    const done = this.#done[ticket] ?? 0;
    const [offsetBytes, length] = [this.#offsets[ticket] ?? 0, this.#lengths[ticket] ?? 0];
    this.#calls?.write(ticket, this.#file.fd, offsetBytes + done, length - done, done);
  }

  /** What was written in part, or interrupted, goes on: whole blocks again. */
  #wentOn(ticket: number, result: number): void {
    const done = (this.#done[ticket] ?? 0) + Math.max(0, result);
    const tries = (this.#tries[ticket] ?? 0) + 1;
    const again = result > 0 || result === -EINTR || result === -EAGAIN;
    if (done === this.#lengths[ticket]) this.#end(ticket, 0);
    else if (!again || tries > TRIES_MAX) this.#end(ticket, result < 0 ? -result : EIO);
    else {
      this.#tries[ticket] = tries;
      this.#done[ticket] = done - (done % this.#file.blockBytes);
      this.#add(ticket);
    }
  }

  #end(ticket: number, errno: number): void {
    this.#calls?.end(ticket, this.#lengths[ticket] ?? 0);
    this.#lengths[ticket] = 0;
    if (this.#calls?.isEmpty === true) this.#lock.release();
    this.#told(ticket, errno);
  }

  /** Whether what was begun is written, nobody knows. */
  #giveUp(): void {
    for (let ticket = 0; ticket < BEGUN_MAX; ticket += 1) if (this.#lengths[ticket] !== 0) this.#end(ticket, EIO);
  }

  #overlaps(offsetBytes: number, length: number): boolean {
    for (let ticket = 0; ticket < BEGUN_MAX; ticket += 1) {
      const begin = this.#offsets[ticket] ?? 0;
      const end = begin + (this.#lengths[ticket] ?? 0);
      if (begin < end && begin < offsetBytes + length && offsetBytes < end) return true;
    }
    return false;
  }
}
