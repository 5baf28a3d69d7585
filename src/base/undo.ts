/** What an undo step that failed was called, and why it failed. */
export interface UndoFailure {
  readonly step: string;
  readonly cause: unknown;
}

interface Undo {
  readonly step: string;
  readonly run: () => void | Promise<void>;
}

/**
 * The steps of something that must leave no trace when it fails half-way. Each step is done and gets its undo in one
 * place; `undoAll` runs the undos backwards and goes on past one that fails.
 *
 * `beforeStep` is told the name of each step before it is done; what it throws is that step's failure. This is how tests
 * fail an attach before each of its steps without a list of their own.
 */
export class UndoStack {
  readonly #undos: Undo[] = [];
  readonly #beforeStep: (step: string) => void;

  constructor(beforeStep: (step: string) => void = () => {}) {
    this.#beforeStep = beforeStep;
  }

  /** Does `act`; if it succeeds, `undo` is kept with its result. A step that fails undoes itself and adds nothing. */
  async step<T>(name: string, act: () => T | Promise<T>, undo?: (done: T) => void | Promise<void>): Promise<T> {
    this.#beforeStep(name);
    const done = await act();
    if (undo !== undefined) this.#undos.push({ step: name, run: () => undo(done) });
    return done;
  }

  /** What was done is to stay, whatever ends here: nothing is left to undo. */
  keep(): void {
    this.#undos.length = 0;
  }

  /** Runs every undo, the newest first, and forgets them. Answers those that failed. */
  async undoAll(): Promise<readonly UndoFailure[]> {
    const failures: UndoFailure[] = [];
    for (let undo = this.#undos.pop(); undo !== undefined; undo = this.#undos.pop()) {
      try {
        await undo.run();
      } catch (cause) {
        failures.push({ step: undo.step, cause });
      }
    }
    return failures;
  }
}
