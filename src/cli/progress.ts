const COLUMNS = 40;
const HUNDRED = 100;

/** '[====      ] 40 %': how much of something is done. */
export function progressBar(done: number, total: number): string {
  const share = total === 0 ? 1 : done / total;
  const filled = Math.floor(share * COLUMNS);
  return `[${'='.repeat(filled).padEnd(COLUMNS)}] ${Math.floor(share * HUNDRED)} %`;
}

/**
 * Shows on a terminal how far something is, in one line that is rewritten where it changes and goes away at the end;
 * anywhere else it shows nothing.
 */
export class Progress {
  readonly #stream: NodeJS.WriteStream;
  #shown = '';

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
  }

  tell(done: number, total: number): void {
    if (!this.#stream.isTTY) return;
    const bar = progressBar(done, total);
    if (bar === this.#shown) return;
    this.#shown = bar;
    this.#stream.write(`\r${bar}`);
  }

  end(): void {
    if (this.#shown !== '') this.#stream.write(`\r${' '.repeat(this.#shown.length)}\r`);
    this.#shown = '';
  }
}
