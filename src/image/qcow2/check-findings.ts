/** Each finding is told as long as they are this many; all are counted. */
const TOLD_MAX = 1_000;

/** Told what is found, a line each. */
export type OnFinding = (text: string) => void;

/** What a check has found, counted as QEMU's does. */
export class Findings {
  /** Tables say what cannot be, or a cluster is counted less often than it is used. */
  corruptions = 0;
  /** Clusters that are counted more often than they are used. */
  leaks = 0;
  /** Clusters that could not be looked at. */
  checkErrors = 0;
  readonly #onFinding: OnFinding;
  #told = 0;

  constructor(onFinding: OnFinding) {
    this.#onFinding = onFinding;
  }

  corruption(text: string): void {
    this.corruptions += 1;
    this.#tell(`ERROR ${text}`);
  }

  leak(text: string): void {
    this.leaks += 1;
    this.#tell(`Leaked ${text}`);
  }

  checkError(text: string): void {
    this.checkErrors += 1;
    this.#tell(`ERROR ${text}`);
  }

  #tell(text: string): void {
    this.#told += 1;
    if (this.#told <= TOLD_MAX) this.#onFinding(text);
    if (this.#told === TOLD_MAX) this.#onFinding(`... what more there is is counted, not told`);
  }
}
