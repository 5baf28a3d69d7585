import { END_OF_FILE, PUNCH_HOLE } from '../../kernel/fd-calls.js';
import type { FileCalls } from '../file-calls.js';
import type { Allocator, AllocatorDuties } from './allocator.js';
import {
  DROPPED_COUNT,
  DROPPED_GONE,
  DROPPED_SEALED,
  FREEING_COUNT,
  FRESH_FROM,
  LENT_COUNT,
  NEXT_FREE,
  RANGES_MAX,
  REACHED,
  type WriteMemory,
} from './memory.js';
import { pushRange } from './pushed-ranges.js';
import type { Refcounts } from './refcounts.js';
import type { WorkerTurns } from './worker-turns.js';

/** Others wait for the lock meanwhile. */
const FREED_AT_A_TIME = 16_384;

const NO_CLUSTERS: ReadonlySet<number> = new Set();

/** Clusters that nobody can use any more, and that are counted still. */
interface TakenPiece {
  readonly first: number;
  readonly end: number;
  /** Before they are free. */
  readonly isPunched: boolean;
}

/** Takes back what nobody points to any more; under the image's lock, unless told otherwise. */
export class DroppedClusters {
  readonly #allocator: Allocator;
  readonly #refcounts: Refcounts;
  readonly #memory: WriteMemory;
  readonly #duties: Pick<AllocatorDuties, 'markCorrupt' | 'isTableInUse'>;
  readonly #turns: WorkerTurns | undefined;
  readonly #clusterBytes: number;
  readonly #fd: number;
  readonly #calls: FileCalls;
  /** By this worker, and of no concern to others. */
  readonly #taken: TakenPiece[] = [];

  constructor(
    allocator: Allocator,
    refcounts: Refcounts,
    memory: WriteMemory,
    duties: Pick<AllocatorDuties, 'markCorrupt' | 'isTableInUse'>,
    turns: WorkerTurns | undefined,
    file: { readonly clusterBytes: number; readonly fd: number; readonly calls: FileCalls },
  ) {
    this.#allocator = allocator;
    this.#refcounts = refcounts;
    this.#memory = memory;
    this.#duties = duties;
    this.#turns = turns;
    this.#clusterBytes = file.clusterBytes;
    this.#fd = file.fd;
    this.#calls = file.calls;
  }

  /** Whether `ranges` more can be dropped before `take` is asked. */
  hasRoom(ranges: number): boolean {
    return (this.#memory.numbers[DROPPED_COUNT] ?? 0) + ranges <= RANGES_MAX;
  }

  /** Whether nothing can be taken for now, whatever reaches the disk: somebody may still use what was taken last. */
  get areHeldUp(): boolean {
    const { numbers } = this.#memory;
    return (numbers[FREEING_COUNT] ?? 0) > (numbers[LENT_COUNT] ?? 0) && this.#turns?.havePassed() === false;
  }

  /** Whether `take` has something to do. */
  get frees(): boolean {
    const { numbers } = this.#memory;
    const lent = numbers[LENT_COUNT] ?? 0;
    if ((numbers[DROPPED_COUNT] ?? 0) > 0 || (numbers[FREEING_COUNT] ?? 0) > lent) return true;
    return lent > 0 && this.#turns?.areLent !== true;
  }

  /** Nothing in memory points to the clusters any more, once each. Where there is no room for more, they are lost until a check. */
  drop(first: number, count: number): void {
    const { numbers, dropped } = this.#memory;
    const sealed = (numbers[DROPPED_SEALED] ?? 0) - (numbers[DROPPED_GONE] ?? 0);
    pushRange(dropped, numbers, DROPPED_COUNT, first, count, sealed);
  }

  /** With what no longer points to what was dropped in the file, or about to be: answers what `take` is told once that is on stable storage. */
  seal(): number {
    const { numbers } = this.#memory;
    const sealed = (numbers[DROPPED_GONE] ?? 0) + (numbers[DROPPED_COUNT] ?? 0);
    numbers[DROPPED_SEALED] = sealed;
    return sealed;
  }

  /**
   * Takes what nobody can use any more of what was dropped until `sealed`: it is counted still, so that nobody else gets
   * it. Then its storage can be given back, without the lock, and it is to be freed. Answers 0 or a positive errno.
   */
  take(sealed: number): number {
    const { numbers, dropped, freeing } = this.#memory;
    const errno = this.#takePassed();
    const lent = numbers[LENT_COUNT] ?? 0;
    if (errno !== 0 || (numbers[FREEING_COUNT] ?? 0) > lent) return errno;
    const waiting = numbers[DROPPED_COUNT] ?? 0;
    const gone = numbers[DROPPED_GONE] ?? 0;
    const count = Math.max(0, Math.min(waiting, sealed - gone, RANGES_MAX - lent));
    if (count === 0) return 0;
    freeing.set(dropped.subarray(0, 2 * count), 2 * lent);
    dropped.copyWithin(0, 2 * count, 2 * waiting);
    numbers[FREEING_COUNT] = lent + count;
    numbers[DROPPED_COUNT] = waiting - count;
    numbers[DROPPED_GONE] = gone + count;
    this.#turns?.mark();
    return this.#takePassed();
  }

  #takePassed(): number {
    const { numbers, freeing } = this.#memory;
    const ranges = numbers[FREEING_COUNT] ?? 0;
    if (ranges === 0 || this.#turns?.havePassed() === false) return 0;
    const lent = this.#turns?.lentClusters() ?? NO_CLUSTERS;
    const waited = freeing.slice(0, 2 * ranges);
    numbers[FREEING_COUNT] = 0;
    let errno = 0;
    for (let range = 0; range < ranges && errno === 0; range += 1) {
      errno = this.#takeUnlent(waited[2 * range] ?? 0, waited[2 * range + 1] ?? 0, lent);
    }
    numbers[LENT_COUNT] = numbers[FREEING_COUNT] ?? 0;
    return errno;
  }

  /** What is lent to a pipe waits on. */
  #takeUnlent(first: number, count: number, lent: ReadonlySet<number>): number {
    const { numbers, freeing } = this.#memory;
    if (lent.size === 0) return this.#takeRange(first, first + count);
    const end = first + count;
    for (let from = first; from < end; ) {
      const isLent = lent.has(from);
      let to = from + 1;
      while (to < end && lent.has(to) === isLent) to += 1;
      if (isLent) pushRange(freeing, numbers, FREEING_COUNT, from, to - from);
      const errno = isLent ? 0 : this.#takeRange(from, to);
      if (errno !== 0) return errno;
      from = to;
    }
    return 0;
  }

  /** In pieces: what nothing else has either can be given back before it is free. The end of the file is cut off instead. */
  #takeRange(first: number, end: number): number {
    const fileEnd = this.#memory.numbers[FRESH_FROM];
    let refcount = this.#countOf(first);
    for (let from = first; from < end; ) {
      const isLast = refcount === 1;
      let to = from;
      do {
        if (refcount < 0) return -refcount;
        to += 1;
        if (to < end) refcount = this.#countOf(to);
      } while (to < end && to - from < FREED_AT_A_TIME && (refcount === 1) === isLast);
      this.#taken.push({ first: from, end: to, isPunched: isLast && to !== fileEnd });
      from = to;
    }
    return 0;
  }

  /** The refcount of a cluster that was dropped: it is counted, and no table that is in use. Answers −errno otherwise. */
  #countOf(cluster: number): number {
    const refcount = this.#refcounts.get(cluster);
    const isTable = refcount === 1 && this.#allocator.isTable(cluster) && this.#duties.isTableInUse(cluster);
    return refcount === 0 || isTable ? -this.#duties.markCorrupt() : refcount;
  }

  /** Without the lock: gives the storage of what was taken back. */
  giveBackTaken(): void {
    for (const { first, end, isPunched } of this.#taken) if (isPunched) this.#punch(first, end);
  }

  get hasTaken(): boolean {
    return this.#taken.length > 0;
  }

  /** Lowers the refcounts of some of what was taken, FREED_AT_A_TIME clusters at most. Answers 0 or a positive errno. */
  freeTaken(): number {
    const piece = this.#taken.pop();
    const errno = piece === undefined ? 0 : this.#freePiece(piece);
    if (errno !== 0) this.#taken.length = 0;
    return errno;
  }

  #freePiece({ first, end, isPunched }: TakenPiece): number {
    const { numbers } = this.#memory;
    let holeFrom = first;
    for (let cluster = first; cluster < end; cluster += 1) {
      // The same may have been dropped more often than it was counted.
      const refcount = this.#countOf(cluster);
      const errno = refcount < 0 ? -refcount : this.#refcounts.set(cluster, refcount - 1);
      if (errno !== 0) return errno;
      if (refcount > 1) {
        this.#punch(holeFrom, cluster);
        holeFrom = cluster + 1;
      } else numbers[NEXT_FREE] = Math.min(numbers[NEXT_FREE] ?? 0, cluster);
    }
    if (holeFrom < end && !this.#cutTail(holeFrom, end) && !isPunched) this.#punch(holeFrom, end);
    return 0;
  }

  /** What is free at the end of the file goes. */
  #cutTail(first: number, end: number): boolean {
    const { numbers } = this.#memory;
    if (numbers[FRESH_FROM] !== end || this.#calls.seek(this.#fd, 0, END_OF_FILE) > end * this.#clusterBytes)
      return false;
    if (this.#calls.truncate(this.#fd, first * this.#clusterBytes) !== 0) return false;
    numbers[FRESH_FROM] = first;
    numbers[REACHED] = 0;
    this.#allocator.reserved.forget();
    return true;
  }

  /** That the storage is kept where this cannot be done is no error. */
  #punch(first: number, end: number): void {
    if (first >= end) return;
    this.#calls.fallocate(this.#fd, PUNCH_HOLE, first * this.#clusterBytes, (end - first) * this.#clusterBytes);
  }
}
