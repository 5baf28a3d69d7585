import { FILE_READS_MAX, FileReads } from '../image/file-reads.js';
import { emptyPlace, type Image } from '../image/image.js';
import type { Request } from '../protocol/request.js';
import { KeptRequests } from './kept-requests.js';
import type { Reads } from './reads.js';
import type { Replies } from './replies.js';

/**
 * Of data that are answered at a time. What a client asks for when it has read them is for the disk, which would have ever less to do
 * until all that are done were answered.
 */
const TOGETHER_BYTES = 131_072;

/**
 * READs that a disk does at the same time: each is answered when it is done, in whatever order. Small ones are read into memory; of
 * large ones in the page cache only the last byte is, so as to be told when they are there.
 */
export class BegunReads {
  readonly #image: Image;
  readonly #replies: Replies;
  readonly #reads: Reads;
  /** Absent until a read is begun. */
  #files: FileReads | 'unavailable' | undefined;
  readonly #place = emptyPlace();
  readonly #begun = new KeptRequests(FILE_READS_MAX);
  /** READs of so many bytes as the last. */
  #together = 1;
  readonly #onRead = (ticket: number, at: number) => this.#answer(ticket, at);

  constructor(image: Image, replies: Replies, reads: Reads) {
    this.#image = image;
    this.#replies = replies;
    this.#reads = reads;
  }

  get isEmpty(): boolean {
    return this.#begun.count === 0;
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
    const files = this.#reads.isBeginnable(request) ? this.#opened() : undefined;
    if (files === undefined) return false;
    const { offsetBytes, lengthBytes } = request;
    const isSentCached = this.#reads.isSentCached(request);
    if (isSentCached) this.#image.cache(offsetBytes, lengthBytes);
    let ticket = -1;
    while (ticket < 0) {
      if (files.isBroken || !this.#image.findPlace(offsetBytes, lengthBytes, this.#place)) return false;
      // What is asked for behind the rest comes behind it, mostly: where not, the answer waits.
      if (isSentCached) this.#place.offsetBytes += lengthBytes - 1;
      ticket = files.begin(this.#place, isSentCached ? 1 : lengthBytes);
      // By the time that there is room the place may be another one.
      if (ticket < 0) this.#take(1);
    }
    this.#begun.keep(ticket, request);
    this.#together = Math.max(1, Math.floor(TOGETHER_BYTES / request.lengthBytes));
    return true;
  }

  /** Whether one of them reads of the range of a request, which is not to change what it reads. */
  overlaps(request: Readonly<Request>): boolean {
    return this.#begun.overlaps(request);
  }

  /** Sees that all are on their way, and answers those that are done, or TOGETHER_BYTES of them. */
  answerDone(): void {
    this.#take(0, this.#together);
  }

  /** Waits for all of them, and answers. */
  finish(): void {
    this.#take(this.#begun.count);
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

  #take(waitFor: number, most?: number): void {
    if (this.#begun.count === 0 || typeof this.#files !== 'object') return;
    if (waitFor > 0) this.#replies.send();
    this.#files.take(waitFor, this.#onRead, most);
    this.#reads.sendTogether();
    if (this.#begun.count > 0) return;
    this.#image.letGoPlaces();
  }

  #answer(ticket: number, at: number): void {
    this.#begun.letGo(ticket);
    const request = this.#begun.at(ticket);
    if (request === undefined || typeof this.#files !== 'object') return;
    if (at < 0 || this.#reads.isSentCached(request)) this.#reads.answerTogether(request);
    else this.#replies.copyOf(request, this.#files.bytes, at);
  }
}
