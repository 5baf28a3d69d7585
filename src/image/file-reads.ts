import { constants } from 'node:os';
import { FileRing } from '../kernel/file-ring.js';
import type { DataPlace } from './image.js';
import { UnitMemory } from './unit-memory.js';

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

/** Reads of files, done by the kernel all at the same time, each into memory of its own. Belongs to one thread. */
export class FileReads {
  readonly #ring: FileRing;
  readonly #memory: UnitMemory;
  // By ticket: what was asked for.
  readonly #skips = new Int32Array(FILE_READS_MAX);
  readonly #lengths = new Int32Array(FILE_READS_MAX);
  #count = 0;
  /** What was added and not handed over yet. */
  #added = false;
  /** The ring would not go on. What is on its way may still be written, so the memory is kept, and nothing is begun. */
  #broken = false;
  #told: OnRead = () => {};
  readonly #onDone = (ticket: number, result: number) => this.#end(ticket, result);

  private constructor(ring: FileRing, memory: UnitMemory) {
    this.#ring = ring;
    this.#memory = memory;
  }

  /** Absent where the kernel does not do several reads at a time for one thread. */
  static open(): FileReads | undefined {
    const ring = FileRing.open(FILE_READS_MAX);
    if (ring === undefined) return undefined;
    const memory = UnitMemory.of(FILE_READS_MAX, FILE_READ_BYTES_MAX + RESTS_BYTES);
    if (memory === undefined) ring.close();
    return memory === undefined ? undefined : new FileReads(ring, memory);
  }

  /** Where the data are that `take` tells of. */
  get bytes(): Buffer {
    return this.#memory.bytes;
  }

  get isBroken(): boolean {
    return this.#broken;
  }

  /** For poll(2): readable while a read is done that `take` has not told of. */
  get readableFd(): number {
    return this.#ring.readableFd;
  }

  /** Begins a read of at most DIRECT_FILE_READ_BYTES_MAX. Answers its ticket; below 0 where another must be done first. */
  begin({ fd, blockBytes, offsetBytes }: Readonly<DataPlace>, length: number): number {
    const ticket = this.#memory.take(length + RESTS_BYTES);
    if (ticket < 0) return ticket;
    const skip = offsetBytes % blockBytes;
    const wholeBytes = Math.ceil((skip + length) / blockBytes) * blockBytes;
    this.#skips[ticket] = skip;
    this.#lengths[ticket] = length;
    this.#ring.read(fd, offsetBytes - skip, wholeBytes, this.#memory.addressOf(ticket), ticket);
    this.#added = true;
    this.#count += 1;
    return ticket;
  }

  /** Hands over what was begun, waits until at least `waitFor` of them are done (or all, if they are fewer), and tells of each. */
  take(waitFor: number, onRead: OnRead): void {
    this.#told = onRead;
    const left = Math.max(0, this.#count - waitFor);
    if (!this.#broken) this.#ring.take(this.#onDone);
    while (this.#added || this.#count > left) {
      this.#added = false;
      if (this.#ring.submit(this.#count > left ? 1 : 0) === 0) this.#ring.take(this.#onDone);
      else this.#giveUp();
    }
  }

  /** Gives the memory back, which the next reads take again. */
  relax(): void {
    if (this.#count === 0 && !this.#broken) this.#memory.relax();
  }

  /** Nothing that was begun is left. */
  close(): void {
    if (this.#broken) return;
    this.#ring.close();
    this.#memory.close();
  }

  /** What is short is an error, or the end of the file. */
  #end(ticket: number, result: number): void {
    const length = this.#lengths[ticket] ?? 0;
    const skip = this.#skips[ticket] ?? 0;
    this.#count -= 1;
    this.#lengths[ticket] = 0;
    this.#told(ticket, result >= skip + length ? this.#memory.placeOf(ticket) + skip : -1);
    this.#memory.free(ticket, length + RESTS_BYTES);
  }

  #giveUp(): void {
    this.#broken = true;
    for (let ticket = 0; ticket < FILE_READS_MAX; ticket += 1) if (this.#lengths[ticket] !== 0) this.#end(ticket, -EIO);
  }
}
