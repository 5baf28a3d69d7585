import type { Extent, Image } from '../image/image.js';
import { NBD_CMD_FLAG_DF } from '../protocol/constants.js';
import { type ReplyStyle, replyError } from '../protocol/reply.js';
import type { Request } from '../protocol/request.js';
import { PIPED_BYTES_MIN, PipedReads } from './piped-reads.js';
import type { Replies } from './replies.js';

/** A shorter READ is sent as it is: to look for holes in it takes longer than to send zeroes. */
const WORTH_LOOKING_BYTES = 65_536;
/** A READ in more pieces than that is sent as a whole. */
const PIECES_MAX = 16;

/** Answers READs that are in order (request-rules), each in the way that is cheapest for it. */
export class Reads {
  readonly #image: Image;
  readonly #replies: Replies;
  readonly #inPieces: boolean;
  readonly #piped: PipedReads;
  readonly #extent: Extent = { lengthBytes: 0, hole: false, zero: false };
  /** The pieces of a READ: zeroes, or data that are to be read. */
  readonly #pieceBytes = new Float64Array(PIECES_MAX);
  readonly #pieceIsHole = new Uint8Array(PIECES_MAX);

  constructor(socketFd: number, image: Image, replies: Replies, style: ReplyStyle) {
    this.#image = image;
    this.#replies = replies;
    this.#inPieces = style !== 'simple';
    this.#piped = new PipedReads(socketFd, image, replies);
  }

  answer(request: Readonly<Request>): void {
    const { lengthBytes } = request;
    if (lengthBytes === 0) this.#replies.reply(request, 0);
    else if (lengthBytes < WORTH_LOOKING_BYTES) this.#copy(request);
    else {
      if (!this.#isWhole(request) && this.#answerInPieces(request)) return;
      if (!this.#piped.answer(request)) this.#copy(request);
    }
  }

  /** Whether such a READ will be one `read` of the image: the larger ones have other ways. */
  isCopied(request: Readonly<Request>): boolean {
    const { lengthBytes } = request;
    if (lengthBytes < WORTH_LOOKING_BYTES) return lengthBytes > 0;
    return lengthBytes < PIPED_BYTES_MIN && this.#isWhole(request);
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

  /** False where there is no hole to be spared, or too many: nothing has happened then. */
  #answerInPieces(request: Readonly<Request>): boolean {
    const pieces = this.#findPieces(request.offsetBytes, request.lengthBytes);
    if (pieces === 0 || (pieces === 1 && this.#pieceIsHole[0] === 0)) return false;
    let offsetBytes = request.offsetBytes;
    for (let piece = 0; piece < pieces; piece += 1) {
      const lengthBytes = this.#pieceBytes[piece] ?? 0;
      const last = piece === pieces - 1;
      if (this.#pieceIsHole[piece] === 1) this.#replies.hole(request, offsetBytes, lengthBytes, last);
      else if (!this.#answerPiece(request, offsetBytes, lengthBytes, last)) return true;
      offsetBytes += lengthBytes;
    }
    return true;
  }

  /** Answers how many pieces there are, 0 where that cannot be told or would be too many. */
  #findPieces(fromBytes: number, lengthBytes: number): number {
    let pieces = 0;
    for (let done = 0; done < lengthBytes; done += this.#extent.lengthBytes) {
      if (this.#image.status(fromBytes + done, lengthBytes - done, this.#extent) !== 0) return 0;
      const isHole = this.#extent.zero ? 1 : 0;
      if (pieces > 0 && this.#pieceIsHole[pieces - 1] === isHole) {
        this.#pieceBytes[pieces - 1] = (this.#pieceBytes[pieces - 1] ?? 0) + this.#extent.lengthBytes;
        continue;
      }
      if (pieces === PIECES_MAX) return 0;
      this.#pieceBytes[pieces] = this.#extent.lengthBytes;
      this.#pieceIsHole[pieces] = isHole;
      pieces += 1;
    }
    return pieces;
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
