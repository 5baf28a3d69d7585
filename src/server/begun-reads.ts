import { FILE_READS_MAX, FileReads } from '../image/file-reads.js';
import { emptyPlace, type Image } from '../image/image.js';
import { emptyRequest, type Request } from '../protocol/request.js';
import type { Reads } from './reads.js';
import type { Replies } from './replies.js';

/** After so many, none is on its way for once: what an image gave up meanwhile can have another use then. */
const READS_IN_A_ROW_MAX = 4_096;

/** READs that a disk does at the same time: each is answered when it is done, in whatever order. */
export class BegunReads {
  readonly #image: Image;
  readonly #replies: Replies;
  readonly #reads: Reads;
  /** Absent until a read is begun. */
  #files: FileReads | 'unavailable' | undefined;
  readonly #place = emptyPlace();
  /** By ticket. */
  readonly #requests = Array.from({ length: FILE_READS_MAX }, emptyRequest);
  readonly #isBegun = new Uint8Array(FILE_READS_MAX);
  #count = 0;
  #inARow = 0;
  readonly #onRead = (ticket: number, at: number) => this.#answer(ticket, at);

  constructor(image: Image, replies: Replies, reads: Reads) {
    this.#image = image;
    this.#replies = replies;
    this.#reads = reads;
  }

  get isEmpty(): boolean {
    return this.#count === 0;
  }

  /** Whether any can be begun, as far as is known. */
  get areAvailable(): boolean {
    return this.#files !== 'unavailable';
  }

  /** For poll(2), if there are any: readable once `answerDone` has something to answer. */
  get fd(): number {
    return typeof this.#files === 'object' ? this.#files.readableFd : -1;
  }

  /** False: it is to be answered in another way. */
  begin(request: Readonly<Request>): boolean {
    const files = this.#opened();
    if (files === undefined || !this.#reads.isBeginnable(request)) return false;
    if (this.#inARow === READS_IN_A_ROW_MAX) this.finish();
    let ticket = -1;
    while (ticket < 0) {
      if (files.isBroken || !this.#image.findPlace(request.offsetBytes, request.lengthBytes, this.#place)) return false;
      ticket = files.begin(this.#place, request.lengthBytes);
      // By the time that there is room the place may be another one.
      if (ticket < 0) this.#take(1);
    }
    Object.assign(this.#requests[ticket] ?? {}, request);
    this.#isBegun[ticket] = 1;
    this.#count += 1;
    this.#inARow += 1;
    return true;
  }

  /** Whether one of them reads of the range of a request, which is not to change what it reads. */
  overlaps({ offsetBytes, lengthBytes }: Readonly<Request>): boolean {
    if (this.#count === 0) return false;
    for (let ticket = 0; ticket < FILE_READS_MAX; ticket += 1) {
      const begun = this.#requests[ticket];
      if (this.#isBegun[ticket] === 0 || begun === undefined) continue;
      if (begun.offsetBytes < offsetBytes + lengthBytes && offsetBytes < begun.offsetBytes + begun.lengthBytes)
        return true;
    }
    return false;
  }

  /** Sees that all are on their way, and answers those that are done. */
  answerDone(): void {
    this.#take(0);
  }

  /** Waits for all of them, and answers. */
  finish(): void {
    this.#take(this.#count);
  }

  /** Gives memory back: there will be none for a while. */
  relax(): void {
    if (typeof this.#files === 'object') this.#files.relax();
  }

  close(): void {
    this.finish();
    if (typeof this.#files === 'object') this.#files.close();
  }

  #opened(): FileReads | undefined {
    this.#files ??= FileReads.open() ?? 'unavailable';
    if (this.#files === 'unavailable' || this.#files.isBroken) return undefined;
    return this.#files;
  }

  #take(waitFor: number): void {
    if (this.#count === 0 || typeof this.#files !== 'object') return;
    if (waitFor > 0) this.#replies.send();
    this.#files.take(waitFor, this.#onRead);
    if (this.#count > 0) return;
    this.#inARow = 0;
    this.#image.letGoPlaces();
  }

  #answer(ticket: number, at: number): void {
    this.#count -= 1;
    this.#isBegun[ticket] = 0;
    const request = this.#requests[ticket];
    if (request === undefined || typeof this.#files !== 'object') return;
    if (at < 0) this.#reads.answer(request);
    else this.#replies.copyOf(request, this.#files.bytes, at);
  }
}
