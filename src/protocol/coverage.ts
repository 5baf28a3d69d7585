interface Piece {
  readonly from: number;
  readonly to: number;
}

/** Which bytes of a range have come: pieces in any order, none over another. Neighbours become one piece. */
export class Coverage {
  /** In their order, with a gap between any two. */
  readonly #pieces: Piece[] = [];
  #bytes = 0;

  get coveredBytes(): number {
    return this.#bytes;
  }

  /** Takes the bytes from `from` up to, not including, `to`; answers false, and takes none, if one was there. */
  add(from: number, to: number): boolean {
    const index = this.#firstEndingAtOrBehind(from);
    const [at, next] = [this.#pieces[index], this.#pieces[index + 1]];
    const joinsBefore = at?.to === from;
    const behind = joinsBefore ? next : at;
    if (behind !== undefined && behind.from < to) return false;
    const joinsBehind = behind?.from === to;
    const piece = { from: joinsBefore ? at.from : from, to: joinsBehind ? behind.to : to };
    this.#pieces.splice(index, (joinsBefore ? 1 : 0) + (joinsBehind ? 1 : 0), piece);
    this.#bytes += to - from;
    return true;
  }

  #firstEndingAtOrBehind(from: number): number {
    let [low, high] = [0, this.#pieces.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#pieces[middle]?.to ?? 0) < from) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
