import { DIRECT_FILE_READ_BYTES_MAX, FILE_READ_BYTES_MAX } from '../image/file-reads.js';
import type { Image } from '../image/image.js';
import { NBD_CMD_FLAG_DF, NBD_STATE_ZERO } from '../protocol/constants.js';
import { type ReplyStyle, replyError } from '../protocol/reply.js';
import type { Request } from '../protocol/request.js';
import { Extents, zeroState } from './extents.js';
import { PipedReads } from './piped-reads.js';
import type { Replies } from './replies.js';

/** A shorter READ is sent as it is: to look for holes in it takes longer than to send zeroes. */
const WORTH_LOOKING_BYTES = 65_536;
/** A READ in more pieces than that is sent as a whole. */
const PIECES_MAX = 16;

/** Nobody writes to it. */
const clock = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
/** Pause between the first two looks at what a client that has left has read; each is longer, up to the second. */
const LOOK_MS = 5;
const LOOK_MS_MAX = 100;

/** Answers READs that are in order (request-rules), each in the way that is cheapest for it. */
export class Reads {
  readonly #image: Image;
  readonly #replies: Replies;
  readonly #inPieces: boolean;
  readonly #piped: PipedReads;
  /** The pieces of a READ: zeroes, or data that are to be read. */
  readonly #pieces: Extents;

  constructor(socketFd: number, image: Image, replies: Replies, style: ReplyStyle) {
    this.#image = image;
    this.#replies = replies;
    this.#pieces = new Extents(image, PIECES_MAX, zeroState);
    this.#inPieces = style !== 'simple';
    this.#piped = new PipedReads(socketFd, image, replies);
  }

  /** Answers one of several: `sendTogether` is called behind the last, before anything is waited for. */
  answerTogether(request: Readonly<Request>): void {
    const { lengthBytes } = request;
    if (lengthBytes === 0) this.#replies.reply(request, 0);
    else if (lengthBytes < WORTH_LOOKING_BYTES) this.#copy(request);
    else {
      if (!this.#isWhole(request) && this.#answerInPieces(request)) return;
      if (this.#image.isDirect || !this.#piped.answer(request)) this.#copy(request);
    }
  }

  sendTogether(): void {
    this.#piped.send();
  }

  /** Whether such a READ may be one read of a file beside others: larger ones have another way, or are in pieces. */
  isBeginnable(request: Readonly<Request>): boolean {
    const { lengthBytes } = request;
    if (lengthBytes < WORTH_LOOKING_BYTES) return lengthBytes > 0;
    const bytesMax = this.#image.isDirect ? DIRECT_FILE_READ_BYTES_MAX : FILE_READ_BYTES_MAX;
    return lengthBytes <= bytesMax && this.#isWhole(request);
  }

  /** Whether such a READ is only brought into the page cache beside others: it is answered from there with a copy less. */
  isSentCached({ lengthBytes }: Readonly<Request>): boolean {
    return lengthBytes >= WORTH_LOOKING_BYTES && !this.#image.isDirect;
  }

  /** Asked now and then: what was sent by reference may have been read. */
  takeBack(): void {
    this.#piped.takeBack();
  }

  /**
   * A client that has said goodbye, or has shut its socket down, may still read its replies, of which some lie in the image:
   * until it has closed its socket. It is waited for until `hurries`.
   */
  untilTakenBack(hurries: () => boolean): void {
    this.#piped.takeBack();
    for (let lookMs = LOOK_MS; this.#piped.isLending && !hurries(); lookMs = Math.min(2 * lookMs, LOOK_MS_MAX)) {
      Atomics.wait(clock, 0, 0, lookMs);
      this.#piped.takeBack();
    }
  }

  close(): void {
    this.#piped.close();
  }

  /** Whether no holes are looked for. */
  #isWhole({ flags }: Readonly<Request>): boolean {
    return !this.#inPieces || (flags & NBD_CMD_FLAG_DF) !== 0 || !this.#image.mayHaveHoles;
  }

  #copy(request: Readonly<Request>): void {
    const { offsetBytes, lengthBytes } = request;
    const at = this.#replies.roomForData(lengthBytes);
    if (at < 0) return;
    const errno = this.#image.read(offsetBytes, lengthBytes, this.#replies.bytes, at);
    if (errno === 0) this.#replies.data(request, offsetBytes, lengthBytes, true);
    else this.#replies.reply(request, replyError(errno, request));
  }

  /** False where there is no hole to be spared, too many, or none can be told: nothing has happened then. */
  #answerInPieces(request: Readonly<Request>): boolean {
    const { lengths, states } = this.#pieces;
    const count = this.#pieces.find(request.offsetBytes, request.lengthBytes);
    if (count < 0 || this.#pieces.coveredBytes < request.lengthBytes) return false;
    if (count === 1 && states[0] !== NBD_STATE_ZERO) return false;
    let offsetBytes = request.offsetBytes;
    for (let piece = 0; piece < count; piece += 1) {
      const lengthBytes = lengths[piece] ?? 0;
      const last = piece === count - 1;
      if (states[piece] === NBD_STATE_ZERO) this.#replies.hole(request, offsetBytes, lengthBytes, last);
      else if (!this.#answerPiece(request, offsetBytes, lengthBytes, last)) return true;
      offsetBytes += lengthBytes;
    }
    return true;
  }

  /** False after an error, which is the last chunk then. */
  #answerPiece(request: Readonly<Request>, offsetBytes: number, lengthBytes: number, last: boolean): boolean {
    const at = this.#replies.roomForData(lengthBytes);
    if (at < 0) return false;
    const errno = this.#image.read(offsetBytes, lengthBytes, this.#replies.bytes, at);
    if (errno === 0) this.#replies.data(request, offsetBytes, lengthBytes, last);
    else this.#replies.errorAt(request, replyError(errno, request), offsetBytes);
    return errno === 0;
  }
}
