import { invariant } from '../base/invariant.js';
import { FileRing } from '../kernel/file-ring.js';
import { addressOf, forget, freeMemory, keptMemory } from '../kernel/memory.js';

/** Of the longest read: through the page cache, where larger ones have another way, and past it. */
export const EXPECTED_BYTES_MAX = 65_536;
export const DIRECT_EXPECTED_BYTES_MAX = 1_048_576;
/** Reads on their way at a time: as deep a queue as clients keep. A power of two. */
const READS_MAX = 64;
/** What a read takes besides its bytes: a block's rest at either end. */
const RESTS_BYTES = 8_192;
/** For the bytes of all. */
const MEMORY_BYTES = READS_MAX * (EXPECTED_BYTES_MAX + RESTS_BYTES);
/** Where a read begins in memory: for every disk. */
const ALIGNMENT_BYTES = 4_096;
const PENDING = -1_000_000;

/** A file whose reads are announced. */
export interface ExpectedFile {
  readonly fd: number;
  /** What its offsets and lengths must be multiples of: a power of two, at most 4096. */
  readonly blockBytes: number;
}

/**
 * Reads that are announced first, done by the kernel all at the same time, each into memory of its own, and then taken in
 * the order in which they were announced. When another one is asked for, all are forgotten: nobody gets bytes that were
 * read before they were announced for this.
 */
export class ExpectedReads {
  readonly #file: ExpectedFile;
  /** A longer read is not taken. */
  readonly bytesMax: number;
  readonly #ring: FileRing;
  readonly #memory: Buffer;
  readonly #address: number;
  // A circle of reads, from #first on. Their memory is a circle too: what is announced next lies behind the last.
  readonly #places = new Int32Array(READS_MAX);
  #end = 0;
  readonly #offsets = new Float64Array(READS_MAX);
  /** What each will be asked for by. */
  readonly #keys = new Float64Array(READS_MAX);
  readonly #lengths = new Int32Array(READS_MAX);
  /** Bytes read or −errno, PENDING before that. */
  readonly #results = new Int32Array(READS_MAX);
  #first = 0;
  #count = 0;
  /** The ring would not go on. What is on its way may still be written, so the memory is kept, and nothing is announced. */
  #broken = false;
  readonly #onDone = (slot: number, result: number) => {
    this.#results[slot] = result;
  };

  private constructor(file: ExpectedFile, ring: FileRing, memory: Buffer) {
    this.#file = file;
    this.bytesMax = file.blockBytes > 1 ? DIRECT_EXPECTED_BYTES_MAX : EXPECTED_BYTES_MAX;
    this.#ring = ring;
    this.#memory = memory;
    this.#address = addressOf(memory);
  }

  /** Absent where the kernel does not do several reads at a time for one thread. */
  static on(file: ExpectedFile): ExpectedReads | undefined {
    const ring = FileRing.open(READS_MAX);
    if (ring === undefined) return undefined;
    const memory = keptMemory(MEMORY_BYTES);
    if (memory === undefined) ring.close();
    return memory === undefined ? undefined : new ExpectedReads(file, ring, memory);
  }

  /**
   * Announces a read, no longer than `bytesMax`; false where no room is left for now. `key` tells it from others of its length: where
   * it is on a disk of which parts may have moved to another place of the file when its turn comes.
   */
  expect(offsetBytes: number, length: number, key = offsetBytes): boolean {
    if (this.#broken || this.#count === READS_MAX || length > this.bytesMax) return false;
    const { fd, blockBytes } = this.#file;
    const start = offsetBytes - (offsetBytes % blockBytes);
    const wholeBytes = Math.ceil((offsetBytes + length - start) / blockBytes) * blockBytes;
    invariant(wholeBytes <= length + RESTS_BYTES, 'a block is no longer than the rests that there is memory for');
    const place = this.#placeFor(wholeBytes);
    if (place < 0) return false;
    this.#end = place + Math.ceil(wholeBytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
    const slot = (this.#first + this.#count) % READS_MAX;
    this.#places[slot] = place;
    this.#offsets[slot] = offsetBytes;
    this.#keys[slot] = key;
    this.#lengths[slot] = length;
    this.#results[slot] = PENDING;
    this.#ring.read(fd, start, wholeBytes, this.#address + place, slot);
    this.#count += 1;
    return true;
  }

  get isEmpty(): boolean {
    return this.#count === 0;
  }

  /** Hands what was announced to the kernel. Answers whether the first can be taken without a wait. */
  start(): boolean {
    if (this.#isFirstDone()) return true;
    this.#submit(0);
    return this.#isFirstDone();
  }

  /** Copies the read announced first into `target`, if that is this one and went well; else false. */
  take(offsetBytes: number, length: number, target: Uint8Array, at: number, key = offsetBytes): boolean {
    if (this.#count === 0 || length > this.bytesMax) return false;
    if (!this.#isFirst(key, length)) {
      this.forgetAll();
      return false;
    }
    const slot = this.#first;
    this.#removeFirst();
    const skip = offsetBytes % this.#file.blockBytes;
    if (this.#broken || this.#offsets[slot] !== offsetBytes) return false;
    if ((this.#results[slot] ?? 0) < skip + length) return false; // an error, or the end: a read of its own tells
    const from = (this.#places[slot] ?? 0) + skip;
    this.#memory.copy(target, at, from, from + length);
    return true;
  }

  /** The turn of a read has come that is not taken: if it is the one announced first, nobody else gets its bytes later. */
  forget(key: number, length: number): void {
    if (this.#isFirst(key, length)) this.#removeFirst();
  }

  /** Before a change of the range: what was read of it is not shown to whoever asks after the change. */
  forgetOverlapping(offsetBytes: number, length: number): void {
    for (let index = 0; index < this.#count; index += 1) {
      const slot = (this.#first + index) % READS_MAX;
      const start = this.#offsets[slot] ?? 0;
      if (start < offsetBytes + length && offsetBytes < start + (this.#lengths[slot] ?? 0)) {
        this.forgetAll();
        return;
      }
    }
  }

  /** Waits until the kernel writes to no memory of ours any more. */
  forgetAll(): void {
    while (this.#count > 0) this.#removeFirst();
  }

  /** Gives the memory back, which the next reads take again. */
  relax(): void {
    if (this.#count === 0 && !this.#broken) forget(this.#memory);
  }

  close(): void {
    this.forgetAll();
    if (this.#broken) return;
    this.#ring.close();
    freeMemory(this.#memory);
  }

  /** Where so many bytes are free beside each other; below 0: nowhere, for now. */
  #placeFor(bytes: number): number {
    if (this.#count === 0) return 0;
    const begin = this.#places[this.#first] ?? 0;
    const isAround = this.#end <= begin;
    if (this.#end + bytes <= (isAround ? begin : MEMORY_BYTES)) return this.#end;
    return !isAround && bytes <= begin ? 0 : -1;
  }

  #isFirst(key: number, length: number): boolean {
    return this.#count > 0 && this.#keys[this.#first] === key && this.#lengths[this.#first] === length;
  }

  #removeFirst(): void {
    while (!this.#isFirstDone()) this.#submit(1);
    this.#first = (this.#first + 1) % READS_MAX;
    this.#count = Math.max(0, this.#count - 1); // none is left where the ring would not go on
  }

  #isFirstDone(): boolean {
    if (this.#count === 0 || this.#results[this.#first] !== PENDING) return true;
    this.#ring.take(this.#onDone);
    return this.#results[this.#first] !== PENDING;
  }

  #submit(waitFor: number): void {
    if (this.#ring.submit(waitFor) === 0) return;
    this.#broken = true;
    this.#count = 0;
  }
}
