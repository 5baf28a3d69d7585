import { constants } from 'node:os';
import { foreignFormat, MAGIC_BYTES } from './format-magic.js';
import { type Image, NOT_BEGUN, ZERO_FAST } from './image.js';
import { ImageFilter } from './image-filter.js';
import type { RawHandle } from './raw.js';
import { EDGES_LOCK } from './shared-layout.js';
import { SharedLock } from './shared-lock.js';

const { EPERM } = constants.errno;
const nothing = new Uint8Array(0);

/** Of a large range, what is changed by one worker at a time ends, or begins, at a multiple of that: file systems free whole blocks. */
const EDGE_BYTES = 65_536;

/**
 * A raw image whose format nobody named: it was taken for raw because its first and last bytes are no other format's. A
 * guest that could change them would choose what the image is taken for next time, and by a qcow2 header which files of the
 * host belong to it. So a change that would do that is refused (EPERM); everything else goes to the raw image. What changes
 * those bytes, the image's edges, is done by one worker at a time: two could bring a part of a header each.
 */
export class GuessedRawImage extends ImageFilter {
  readonly #lock: SharedLock;
  readonly #fileBytes: number;
  readonly #head = new Uint8Array(MAGIC_BYTES);
  /** From here on may lie the last MAGIC_BYTES of the file, which has `#fileBytes`, or more up to whole sectors. */
  readonly #tailFrom: number;
  readonly #tail: Uint8Array;

  constructor(lower: Image, { shared, fileBytes }: Pick<RawHandle, 'shared' | 'fileBytes'>) {
    super(lower);
    this.#lock = new SharedLock(shared, EDGES_LOCK);
    this.#fileBytes = fileBytes;
    this.#tailFrom = Math.max(0, fileBytes - MAGIC_BYTES);
    this.#tail = new Uint8Array(lower.sizeBytes - this.#tailFrom);
  }

  override get beginsWrites(): boolean {
    return this.lower.beginsWrites;
  }

  override beginWrite(offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    if (this.#isAtEdge(offsetBytes, length)) return NOT_BEGUN;
    return this.lower.beginWrite(offsetBytes, length, source, at);
  }

  override write(offsetBytes: number, length: number, source: Uint8Array, at: number, durable: boolean): number {
    if (!this.#isAtEdge(offsetBytes, length)) return this.lower.write(offsetBytes, length, source, at, durable);
    const bytes = source.subarray(at, at + length);
    const errno = this.#changeEdge(offsetBytes, length, bytes, () =>
      this.lower.write(offsetBytes, length, source, at, false),
    );
    return this.#finish(errno, durable);
  }

  override zero(offsetBytes: number, length: number, ways: number, durable: boolean): number {
    if (!this.#isAtEdge(offsetBytes, length)) return this.lower.zero(offsetBytes, length, ways, durable);
    const errno = this.#change(offsetBytes, length, (from, bytes, isRest) =>
      this.lower.zero(from, bytes, isRest ? ways & ~ZERO_FAST : ways, false),
    );
    return this.#finish(errno, durable);
  }

  /** Zeroes are a part of some formats' first bytes, and a trim may leave them. */
  override trim(offsetBytes: number, length: number, durable: boolean): number {
    if (!this.#isAtEdge(offsetBytes, length)) return this.lower.trim(offsetBytes, length, durable);
    const errno = this.#change(offsetBytes, length, (from, bytes) => this.lower.trim(from, bytes, false));
    return this.#finish(errno, durable);
  }

  /** With the lock left: nobody waits for a sync of others. */
  #finish(errno: number, durable: boolean): number {
    return errno === 0 && durable ? this.lower.flush() : errno;
  }

  /**
   * A change to zeroes, which may be large and take seconds: without the lock, but for what is near an edge. That comes last, and is
   * the rest then, so that nothing is changed where `change` cannot be fast.
   */
  #change(
    offsetBytes: number,
    length: number,
    change: (from: number, bytes: number, isRest: boolean) => number,
  ): number {
    const end = offsetBytes + length;
    const from = offsetBytes < MAGIC_BYTES ? Math.min(end, EDGE_BYTES) : offsetBytes;
    const to = end > this.#tailFrom ? Math.max(from, this.#tailFrom - (this.#tailFrom % EDGE_BYTES)) : end;
    let errno = this.#check(offsetBytes, length, 'zeroes');
    if (errno === 0 && from < to) errno = change(from, to - from, false);
    if (errno !== 0) return errno;
    return this.#changeEdge(offsetBytes, length, 'zeroes', () => {
      const head = offsetBytes < from ? change(offsetBytes, from - offsetBytes, from < to) : 0;
      return head === 0 && to < end ? change(to, end - to, offsetBytes < to) : head;
    });
  }

  #isAtEdge(offsetBytes: number, length: number): boolean {
    return offsetBytes < MAGIC_BYTES || offsetBytes + length > this.#tailFrom;
  }

  #changeEdge(offsetBytes: number, length: number, bytes: Uint8Array | 'zeroes', act: () => number): number {
    return this.#lock.hold(() => {
      const errno = this.#check(offsetBytes, length, bytes);
      return errno === 0 ? act() : errno;
    });
  }

  /** Looks at what the edges would be after the change: it may bring a part of them only. */
  #check(offsetBytes: number, length: number, bytes: Uint8Array | 'zeroes'): number {
    let errno = this.lower.read(0, MAGIC_BYTES, this.#head, 0);
    if (errno === 0) errno = this.lower.read(this.#tailFrom, this.#tail.length, this.#tail, 0);
    if (errno !== 0) return errno;
    overlay(this.#head, 0, offsetBytes, length, bytes);
    overlay(this.#tail, this.#tailFrom, offsetBytes, length, bytes);
    return foreignFormat(this.#head, nothing) === undefined && !this.#isForeignTail() ? 0 : EPERM;
  }

  /** Where the file has no whole sectors, a write there decides where it ends. */
  #isForeignTail(): boolean {
    for (let end = Math.max(this.#fileBytes, MAGIC_BYTES); end <= this.sizeBytes; end += 1) {
      const tail = this.#tail.subarray(end - MAGIC_BYTES - this.#tailFrom, end - this.#tailFrom);
      if (foreignFormat(nothing, tail) !== undefined) return true;
    }
    return false;
  }
}

/** Puts into `part`, which begins at `partFrom`, what a change brings of it. */
function overlay(
  part: Uint8Array,
  partFrom: number,
  offsetBytes: number,
  length: number,
  bytes: Uint8Array | 'zeroes',
): void {
  const begin = Math.max(partFrom, offsetBytes);
  const end = Math.min(partFrom + part.length, offsetBytes + length);
  if (begin >= end) return;
  if (bytes === 'zeroes') part.fill(0, begin - partFrom, end - partFrom);
  else part.set(bytes.subarray(begin - offsetBytes, end - offsetBytes), begin - partFrom);
}
