import { emptyRequest, type Request } from '../protocol/request.js';

/** Requests that go on beside others, by the tickets that whoever does them gave: fewer than a number that is known. */
export class KeptRequests {
  readonly #requests: Request[];
  readonly #isKept: Uint8Array;
  #count = 0;

  constructor(ticketsMax: number) {
    this.#requests = Array.from({ length: ticketsMax }, emptyRequest);
    this.#isKept = new Uint8Array(ticketsMax);
  }

  get count(): number {
    return this.#count;
  }

  keep(ticket: number, request: Readonly<Request>): void {
    Object.assign(this.#requests[ticket] ?? {}, request);
    this.#isKept[ticket] = 1;
    this.#count += 1;
  }

  /** It goes on no more. What it was stays there until another is kept by the ticket. */
  letGo(ticket: number): void {
    this.#isKept[ticket] = 0;
    this.#count -= 1;
  }

  at(ticket: number): Readonly<Request> | undefined {
    return this.#requests[ticket];
  }

  /** Whether one of them is about bytes that a request is about. */
  overlaps({ offsetBytes, lengthBytes }: Readonly<Request>): boolean {
    if (this.#count === 0) return false;
    for (let ticket = 0; ticket < this.#requests.length; ticket += 1) {
      const kept = this.#requests[ticket];
      if (this.#isKept[ticket] === 0 || kept === undefined) continue;
      if (kept.offsetBytes < offsetBytes + lengthBytes && offsetBytes < kept.offsetBytes + kept.lengthBytes)
        return true;
    }
    return false;
  }
}
