/** Ways in which `zero` may go about it: bits. Its storage may be given back; without it (NO_HOLE) it stays allocated. */
export const ZERO_MAY_PUNCH = 1;
/** Only if it takes no longer than a write of a few bytes: no zeroes are written. */
export const ZERO_FAST = 2;

/** Answers of `beginWrite` that are no tickets: it is a write for `write`; it can be begun once another was told as done. */
export const NOT_BEGUN = -1;
export const IS_FULL = -2;

/** As much as may have been put into pipes, and not have been read from the socket behind them, when more is put into one. */
export const LENT_BYTES_MAX = 16 << 20;

/** What `status` tells of the bytes from the asked offset on. */
export interface Extent {
  /** At least 1, at most what was asked for; what follows may be of the same kind. */
  lengthBytes: number;
  /** No storage is allocated for them. */
  hole: boolean;
  /** They read as zeroes. */
  zero: boolean;
  /** How many images down what they are was written: 1 is this one, 2 its backing file; 0: nowhere. */
  depth: number;
  /** Where in the file that they were written to they begin, as they are; -1: they lie in none as they are. */
  hostBytes: number;
}

export function emptyExtent(): Extent {
  return { lengthBytes: 0, hole: false, zero: false, depth: 0, hostBytes: -1 };
}

/** Where bytes of an image lie in a file, as they are and beside each other. */
export interface DataPlace {
  fd: number;
  /** What offsets and lengths of reads must be multiples of: a power of two, at most 4096. */
  blockBytes: number;
  offsetBytes: number;
}

export function emptyPlace(): DataPlace {
  return { fd: -1, blockBytes: 1, offsetBytes: 0 };
}

/**
 * What every image format offers a worker. All calls block; offsets and lengths are bytes, checked by the caller
 * (protocol/request-rules) against `sizeBytes`; buffers stay the caller's. A call answers 0 or a positive Linux errno and
 * throws nothing.
 */
export interface Image {
  /** What clients see: a multiple of 512, at most 2^53 - 1. */
  readonly sizeBytes: number;
  readonly readOnly: boolean;

  /** Whether reads and writes go past the page cache: each waits for the disk, and there is nothing to lend to a pipe. */
  readonly isDirect: boolean;
  /** Fills `target` from `at` on with `length` bytes of the image. */
  read(offsetBytes: number, length: number, target: Uint8Array, at: number): number;
  /** With `durable` (FUA) the bytes are on stable storage before the answer. */
  write(offsetBytes: number, length: number, source: Uint8Array, at: number, durable: boolean): number;
  /** Whether `beginWrite` may take writes: where not, it need not be asked. */
  readonly beginsWrites: boolean;
  /**
   * Begins a write that need not be durable, beside others; `source` is free again at once. Answers a ticket (below BEGUN_MAX),
   * NOT_BEGUN or IS_FULL. While one is not told as done, nothing but reads is asked of the image.
   */
  beginWrite(offsetBytes: number, length: number, source: Uint8Array, at: number): number;
  /** For poll(2), right after `takeWrites`: readable once one is done that was not told. */
  readonly begunWritesFd: number;
  /**
   * Sees that all that were begun are on their way, waits until `waitFor` of them are done, or all, if they are fewer, and tells
   * of each that is: its ticket, and 0 or a positive errno.
   */
  takeWrites(waitFor: number, onWritten: (ticket: number, errno: number) => void): void;
  /**
   * Makes the range read as zeroes. `ways`: ZERO_MAY_PUNCH and ZERO_FAST, or 0; with ZERO_FAST it answers EOPNOTSUPP, and
   * the image is as it was, where zeroes would have to be written.
   */
  zero(offsetBytes: number, length: number, ways: number, durable: boolean): number;
  /** Gives the range's storage back where that is possible; afterwards its content is zeroes or what it was. */
  trim(offsetBytes: number, length: number, durable: boolean): number;
  /**
   * Fills `extent` with what begins at `offsetBytes`. `length` is not 0. What cannot be told is neither hole nor zeroes.
   */
  status(offsetBytes: number, length: number, extent: Extent): number;
  /** Whether `status` may find a hole: where not, it need not be asked. */
  readonly mayHaveHoles: boolean;
  /**
   * Fills `place` with where a file has the bytes, for whoever reads there beside other calls; it has nothing else's bytes there
   * until `letGoPlaces`. What is short there is behind the file's end. False: they are elsewhere, or in pieces, or those that were
   * found are to be let go first.
   */
  findPlace(offsetBytes: number, length: number, place: DataPlace): boolean;
  /** Nothing is read any more at any place that was found. */
  letGoPlaces(): void;
  /**
   * Puts bytes of the image into an empty pipe, by reference and not by copy. Answers how many the pipe holds now; where
   * they are fewer than `length`, they are of no use, and `read` says why or does it. Whoever reads them has them in their order,
   * and no more than LENT_BYTES_MAX is on the way to it.
   */
  readIntoPipe(offsetBytes: number, length: number, pipeFd: number): number;
  /** Whether what `readIntoPipe` lent is missed: then `takeBackPages` is to be called. */
  readonly lendsPages: boolean;
  /** Everything that was put into a pipe has reached whoever reads it: its place in the file may get other bytes. */
  takeBackPages(): void;
  /** A hint that the range will be read soon; waits for no read. */
  cache(offsetBytes: number, length: number): number;
  /** Answers after every write that was answered before, on any connection, is on stable storage. */
  flush(): number;
  /**
   * Begins a flush that goes on beside whatever is asked of the image until `finishFlush`, one at a time. False: it is one
   * for `flush`, which is to be called then.
   */
  beginFlush(): boolean;
  /** For poll(2), after `beginFlush`: readable once that flush is done. */
  readonly begunFlushFd: number;
  /** Whether `finishFlush` would not wait. */
  readonly isFlushDone: boolean;
  /** Waits for the flush that was begun, and answers as `flush` does. */
  finishFlush(): number;
  /** Gives memory back that only calls need: there will be none for a while. */
  relax(): void;
  /** Lets go of what this worker holds of the image; the opener's handle stays. */
  close(): void;
}
