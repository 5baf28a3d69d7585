import { retransmittingMs } from './socket-calls.js';

/** Knows since when what was sent on connections does not reach the other side, as far as TCP knows. */
export class Unheard {
  readonly #since = new Map<number, number>();

  /**
   * Those of `sockets` on which TCP has sent again for so long, and heard nothing. To be asked again and again: that nothing
   * was heard before something was sent says nothing.
   */
  look(sockets: readonly number[], limitMs: number): readonly number[] {
    const now = performance.now();
    return sockets.filter((socket) => {
      const deafMs = retransmittingMs(socket);
      if (deafMs === undefined) {
        this.#since.delete(socket);
        return false;
      }
      const since = this.#since.get(socket) ?? now;
      this.#since.set(socket, since);
      return Math.min(now - since, deafMs) >= limitMs;
    });
  }
}
