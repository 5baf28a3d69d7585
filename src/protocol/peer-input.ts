/**
 * The bytes of a peer, taken in the lengths that a machine's states ask for, whatever the pieces they came in. Holds
 * less than one such length between two pieces; the states bound the lengths.
 */
export class PeerInput {
  #piece: Uint8Array = NOTHING;
  #pending: Uint8Array = NOTHING;
  #pendingBytes = 0;

  /** Adds the next piece; the one before it must have been taken as far as it went. */
  give(piece: Uint8Array): void {
    this.#piece = piece;
  }

  /** The next `length` bytes, or `undefined` when they are not all there yet. Valid until the next piece is given. */
  take(length: number): Uint8Array | undefined {
    if (this.#pendingBytes === 0 && this.#piece.length >= length) return this.#cut(length);
    if (this.#pendingBytes === 0) this.#pending = new Uint8Array(length);
    const more = this.#cut(Math.min(length - this.#pendingBytes, this.#piece.length));
    this.#pending.set(more, this.#pendingBytes);
    this.#pendingBytes += more.length;
    if (this.#pendingBytes < length) return undefined;
    const whole = this.#pending;
    this.#pending = NOTHING;
    this.#pendingBytes = 0;
    return whole;
  }

  /** A copy of what the last piece holds beyond what was taken. */
  rest(): Uint8Array {
    return this.#piece.slice();
  }

  /** Memory held for bytes that wait for more. */
  get bufferedBytes(): number {
    return this.#pending.length;
  }

  /** Whether bytes came that nobody has taken yet. */
  get holdsPart(): boolean {
    return this.#pendingBytes > 0;
  }

  #cut(length: number): Uint8Array {
    const bytes = this.#piece.subarray(0, length);
    this.#piece = this.#piece.subarray(length);
    return bytes;
  }
}

const NOTHING = new Uint8Array(0);
