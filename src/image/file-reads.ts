import { constants } from 'node:os';
import type { DataPlace } from './image.js';
import { RingCalls } from './ring-calls.js';

const { EIO } = constants.errno;

/** A longer read is not taken: through the page cache larger ones have another way. */
export const FILE_READ_BYTES_MAX = 65_536;
export const DIRECT_FILE_READ_BYTES_MAX = 1_048_576;
/** Reads on their way at a time: as deep a queue as clients keep. A power of two. */
export const FILE_READS_MAX = 64;
/** What a read takes besides its bytes: a block's rest at either end. */
const RESTS_BYTES = 8_192;

/** What is told of a read that is done: its ticket, and where in `bytes` the data lie; -1: they could not be had in this way. */
export type OnRead = (ticket: number, at: number) => void;

/** Reads of files, done by the kernel all at the same time. Belongs to one thread. */
export class FileReads {
  readonly #calls: RingCalls;
  // By ticket: what was asked for.
  readonly #skips = new Int32Array(FILE_READS_MAX);
  readonly #lengths = new Int32Array(FILE_READS_MAX);
  #told: OnRead = () => {};
  readonly #onDone = (ticket: number, result: number) => this.#end(ticket, result);
  readonly #onBroken = () => this.#giveUp();

  private constructor(calls: RingCalls) {
    this.#calls = calls;
  }

  /** Absent where the kernel does not do several reads at a time for one thread. */
  static open(): FileReads | undefined {
    const calls = RingCalls.open(FILE_READS_MAX, FILE_READ_BYTES_MAX + RESTS_BYTES);
    return calls === undefined ? undefined : new FileReads(calls);
  }

  /** Where the data are that `take` tells of. */
  get bytes(): Buffer {
    return this.#calls.memory.bytes;
  }

  get isBroken(): boolean {
    return this.#calls.isBroken;
  }

  /** For poll(2): readable while a read is done that `take` has not told of. */
  get readableFd(): number {
    return this.#calls.readableFd;
  }

  /** Begins a read of at most DIRECT_FILE_READ_BYTES_MAX. Answers its ticket; below 0 where another must be done first. */
  begin({ fd, blockBytes, offsetBytes }: Readonly<DataPlace>, length: number): number {
    const ticket = this.#calls.begin(length + RESTS_BYTES);
    if (ticket < 0) return ticket;
    const skip = offsetBytes % blockBytes;
    this.#skips[ticket] = skip;
    this.#lengths[ticket] = length;
    this.#calls.read(ticket, fd, offsetBytes - skip, Math.ceil((skip + length) / blockBytes) * blockBytes);
    return ticket;
  }

  /**
   * Hands over what was begun, waits until at least `waitFor` of them are done (or all, if they are fewer), and tells of each. With `most`,
   * which is for those that do not wait, it tells of no more at a time; the others are told next time.
   */
  take(waitFor: number, onRead: OnRead, most?: number): void {
    this.#told = onRead;
    this.#calls.take(waitFor, this.#onDone, this.#onBroken, most);
  }

  /** Gives the memory back, which the next reads take again. */
  relax(): void {
    this.#calls.relax();
  }

  /** Nothing that was begun is left. */
  close(): void {
    this.#calls.close();
  }

  /** What is short is an error, or the end of the file. */
  #end(ticket: number, result: number): void {
    const length = this.#lengths[ticket] ?? 0;
    const skip = this.#skips[ticket] ?? 0;
    this.#lengths[ticket] = 0;
    this.#told(ticket, result >= skip + length ? this.#calls.memory.placeOf(ticket) + skip : -1);
    this.#calls.end(ticket, length + RESTS_BYTES);
  }

  #giveUp(): void {
    for (let ticket = 0; ticket < FILE_READS_MAX; ticket += 1) if (this.#lengths[ticket] !== 0) this.#end(ticket, -EIO);
  }
}
