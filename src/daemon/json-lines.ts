/** A line longer than this is refused: nothing we say to ourselves comes near it. */
export const LINE_BYTES_MAX = 65_536;

export function jsonLine(message: unknown): string {
  return `${JSON.stringify(message)}\n`;
}

/**
 * Cuts a stream of bytes into JSON values, a line each. Answers false when the stream breaks the rules (a line too long,
 * or not JSON): the caller drops the stream.
 */
export class JsonLines {
  #rest: Buffer = Buffer.alloc(0);
  readonly #onValue: (value: unknown) => void;

  constructor(onValue: (value: unknown) => void) {
    this.#onValue = onValue;
  }

  receive(bytes: Buffer): boolean {
    let rest = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    for (let end = rest.indexOf(10); end !== -1; end = rest.indexOf(10)) {
      const value = parse(rest.subarray(0, end));
      if (value === undefined) return false;
      rest = rest.subarray(end + 1);
      this.#onValue(value);
    }
    this.#rest = rest;
    return rest.length <= LINE_BYTES_MAX;
  }
}

function parse(line: Buffer): unknown {
  if (line.length > LINE_BYTES_MAX) return undefined;
  try {
    return JSON.parse(line.toString('utf8'));
  } catch {
    return undefined;
  }
}
