import type { BegunWrites, OnWritten } from '../begun-writes.js';
import { NOT_BEGUN } from '../image.js';
import { DATA } from './cluster-kind.js';
import type { ClusterMap } from './cluster-map.js';
import type { Geometry } from './geometry.js';
import { HOLDS_WRITES, type WorkerTurns } from './worker-turns.js';
import type { WriteOrder } from './write-order.js';

/**
 * Writes to clusters that are the image's own and have data already: no table changes, and no lock is needed. Past the page
 * cache several are done at the same time.
 */
export class InPlaceWrites {
  readonly #map: ClusterMap;
  readonly #order: WriteOrder;
  readonly #turns: WorkerTurns;
  readonly #hasDataFile: boolean;
  readonly #begun: BegunWrites | undefined;

  /** `begun`: by which several can be done at the same time. */
  constructor(
    { hasDataFile }: Geometry,
    map: ClusterMap,
    order: WriteOrder,
    turns: WorkerTurns,
    begun: BegunWrites | undefined,
  ) {
    this.#map = map;
    this.#order = order;
    this.#turns = turns;
    this.#hasDataFile = hasDataFile;
    this.#begun = begun;
  }

  /** Whether what the map has found can be written in its place. */
  get isPossible(): boolean {
    const { kind, isInPlace, hostBytes, lengthBytes } = this.#map;
    return kind === DATA && isInPlace && this.#order.isPrepared && this.#isReached(hostBytes + lengthBytes);
  }

  /** Before it is written. Answers 0 or a positive errno. */
  check(): number {
    return this.#hasDataFile ? 0 : this.#order.checkUntaken(this.#map.hostBytes, this.#map.lengthBytes);
  }

  get mayBegin(): boolean {
    return this.#begun !== undefined;
  }

  /** As `beginWrite` of an image: NOT_BEGUN too where a table has to change, or the data would lie in pieces. */
  begin(offsetBytes: number, length: number, source: Uint8Array, at: number): number {
    const begun = this.#begun;
    if (begun === undefined || this.#order.state !== 0) return NOT_BEGUN;
    const turns = this.#turns;
    turns.begin();
    let ticket = NOT_BEGUN;
    if (turns.holdPlaces(HOLDS_WRITES)) {
      if (this.#find(offsetBytes, length)) ticket = begun.begin(this.#map.hostBytes, length, source, at);
      this.#letGoIfDone();
    }
    turns.end();
    return ticket;
  }

  get readableFd(): number {
    return this.#begun?.readableFd ?? -1;
  }

  take(waitFor: number, onWritten: OnWritten): void {
    this.#begun?.take(waitFor, onWritten);
    this.#letGoIfDone();
  }

  /** Before this worker waits for the lock: who has it may wait for what was begun. */
  settle(): void {
    this.#begun?.settle();
  }

  relax(): void {
    this.#begun?.relax();
  }

  close(): void {
    this.#begun?.close();
    this.#letGoIfDone();
  }

  #letGoIfDone(): void {
    if (this.#begun?.isEmpty === true) this.#turns.letGo(HOLDS_WRITES);
  }

  #find(offsetBytes: number, length: number): boolean {
    const map = this.#map;
    if (map.find(offsetBytes, length) !== 0 || map.lengthBytes < length) return false;
    return this.isPossible && this.check() === 0;
  }

  /** Behind all that was ever written only under the lock: who makes the file longer or shorter would not see it. */
  #isReached(endBytes: number): boolean {
    return this.#hasDataFile || this.#order.allocator.isInside(endBytes);
  }
}
