import { readSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { invariant } from '../base/invariant.js';
import { type Image, LENT_BYTES_MAX } from '../image/image.js';
import { setNonBlocking } from '../kernel/fd-calls.js';
import { closePipe, makeLargePipe, type Pipe } from '../kernel/pipe-calls.js';
import { growSendBuffer, isAllReceived, isUnixSocket, tellsReceived } from '../kernel/socket-calls.js';
import type { Request } from '../protocol/request.js';
import type { Replies } from './replies.js';
import { sendPiped } from './socket-bytes.js';

/** From here on not copying is worth the three calls it takes. */
export const PIPED_BYTES_MIN = 65_536;
/** Of the pipe, and so the longest reply that goes through it. */
const PIPE_BYTES = 1_048_576;
/** Of replies that are sent together, with their headers in the pipe: each takes up to two pages more than its data, of 4 KiB. */
const TOGETHER_BYTES = 14 * PIPED_BYTES_MIN;
/** What a socket must hold so that a reply goes into it at once: with less a copy is faster. */
const SEND_BUFFER_BYTES = 4_194_304;
const SEND_BUFFER_BYTES_MIN = 1_048_576;

/**
 * Large READs without a copy: the pages of the image go by reference into a pipe, and from there to the socket. All
 * of a reply is in the pipe before any of it is sent, so that an error can still be told. On TCP it brings nothing.
 */
export class PipedReads {
  readonly #socketFd: number;
  readonly #image: Image;
  readonly #replies: Replies;
  /** Bytes that were sent by reference may not have been read yet. */
  #isLent = false;
  /** Of whole replies in the pipe. */
  #heldBytes = 0;
  /** 'unused' until the first large read; absent where it cannot be done. */
  #pipe: Pipe | 'unused' | undefined = 'unused';

  constructor(socketFd: number, image: Image, replies: Replies) {
    // The kernel takes twice of what it is asked for a socket.
    invariant(2 * SEND_BUFFER_BYTES + PIPE_BYTES <= LENT_BYTES_MAX, 'no more is on the way than images allow');
    this.#socketFd = socketFd;
    this.#image = image;
    this.#replies = replies;
  }

  /** Answers a READ, by the next `send`; false where it must be copied: nothing has happened then. */
  answer(request: Readonly<Request>): boolean {
    const { offsetBytes, lengthBytes } = request;
    if (lengthBytes < PIPED_BYTES_MIN || lengthBytes > PIPE_BYTES) return false;
    if (this.#pipe === 'unused') this.#pipe = this.#open();
    if (this.#pipe === undefined) return false;
    if (this.#heldBytes + lengthBytes > TOGETHER_BYTES) this.send();
    // What waits there is whole replies, as in the pipe: which goes first is all the same.
    if (!this.#replies.send() || this.#replies.roomForData(0) < 0) return true;
    this.#isLent = this.#image.lendsPages;
    const isAlone = lengthBytes > TOGETHER_BYTES;
    let headerBytes = 0;
    if (!isAlone) {
      this.#replies.dataHeader(request, offsetBytes, lengthBytes, true);
      headerBytes = this.#putHeader(this.#pipe);
    }
    const moved = this.#image.readIntoPipe(offsetBytes, lengthBytes, this.#pipe.writeFd);
    if (moved < lengthBytes) {
      this.send();
      empty(this.#pipe, headerBytes + moved);
      return false;
    }
    this.#heldBytes += headerBytes + lengthBytes;
    if (isAlone) {
      this.#replies.dataHeader(request, offsetBytes, lengthBytes, true);
      this.#replies.send();
      this.send();
    }
    return true;
  }

  /** A small cluster, or a large page, takes a place in the pipe as well: none may be left. */
  #putHeader({ writeFd }: Pipe): number {
    const put = this.#replies.putInto(writeFd);
    if (put > 0) return put;
    this.send();
    return this.#replies.putInto(writeFd);
  }

  /** Sends the replies that the pipe holds. */
  send(): void {
    if (this.#heldBytes === 0 || typeof this.#pipe !== 'object') return;
    const length = this.#heldBytes;
    this.#heldBytes = 0;
    if (this.#replies.sendErrno === 0) this.#replies.sendErrno = -sendPiped(this.#socketFd, this.#pipe.readFd, length);
  }

  /** Whether bytes that were sent by reference may be changed before the client has them, unless `takeBack` is asked. */
  get isLending(): boolean {
    return this.#isLent;
  }

  /** Asked now and then: tells the image when the client has all that it lent. */
  takeBack(): void {
    if (!this.#isLent || !isAllReceived(this.#socketFd)) return;
    this.#isLent = false;
    this.#image.takeBackPages();
  }

  close(): void {
    if (typeof this.#pipe !== 'object') return;
    closePipe(this.#pipe);
    this.#pipe = undefined;
  }

  /** With one core a copy into such a socket is faster (seen in the bench kernel: 2,450 reads of 256 KiB a second, 1,900 by a pipe). */
  #open(): Pipe | undefined {
    if (!isUnixSocket(this.#socketFd)) return undefined;
    const holdsReply = growSendBuffer(this.#socketFd, SEND_BUFFER_BYTES) >= SEND_BUFFER_BYTES_MIN;
    if (!holdsReply || availableParallelism() === 1 || !tellsReceived(this.#socketFd)) return undefined;
    const pipe = makeLargePipe(PIPE_BYTES);
    // It holds so many pages: of a read that begins within one, they are fewer bytes. Nobody would make room.
    if (pipe !== undefined) setNonBlocking(pipe.writeFd);
    return pipe;
  }
}

function empty({ readFd }: Pipe, heldBytes: number): void {
  const sink = Buffer.allocUnsafe(65_536);
  for (let left = heldBytes; left > 0; ) left -= readSync(readFd, sink, 0, Math.min(left, sink.length), null);
}
