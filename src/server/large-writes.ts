import type { Image } from '../image/image.js';
import { NBD_CMD_FLAG_FUA, NBD_CMD_WRITE } from '../protocol/constants.js';
import { replyError } from '../protocol/reply.js';
import type { Request } from '../protocol/request.js';
import type { Changes } from './changes.js';
import type { Ongoing } from './ongoing.js';
import { PIPED_WRITE_BYTES_MIN, PipedWrites } from './piped-writes.js';
import type { Replies } from './replies.js';
import type { RequestInput } from './request-input.js';
import { restOfBlock, wholeBlocks } from './whole-blocks.js';

/** WRITEs that go to the image as they come: those longer than the input, and those that go by reference. */
export class LargeWrites {
  /** A part of one has come. */
  isInOne = false;
  readonly #image: Image;
  readonly #input: RequestInput;
  readonly #replies: Replies;
  readonly #changes: Changes;
  readonly #ongoing: Ongoing;
  readonly #piped: PipedWrites;
  readonly #receive: (missingBytes: number) => number;

  /** `receive` waits for some of the bytes that are missing, puts them into `input`, and answers how many, 0 at the end, or −errno. */
  constructor(
    socketFd: number,
    image: Image,
    input: RequestInput,
    replies: Replies,
    changes: Changes,
    ongoing: Ongoing,
    receive: (missingBytes: number) => number,
  ) {
    this.#image = image;
    this.#input = input;
    this.#replies = replies;
    this.#changes = changes;
    this.#ongoing = ongoing;
    this.#piped = new PipedWrites(socketFd, image);
    this.#receive = receive;
  }

  /** Whether the request is a WRITE so many bytes of which, if they are still in the socket, go from there to the image by reference. */
  goesByReference({ type, flags }: Readonly<Request>, bytes: number): boolean {
    if (bytes < PIPED_WRITE_BYTES_MIN || type !== NBD_CMD_WRITE || (flags & NBD_CMD_FLAG_FUA) !== 0) return false;
    // Nobody looks after what goes on while a pipe is filled.
    return this.#ongoing.isNothing && this.#piped.areAvailable;
  }

  /** Does one, or with an `error` throws a request's data away. Answers 1, 0 where the stream ends before the request does, or −errno. */
  answer(request: Readonly<Request>, error: number, dataBytes: number, isPiped: boolean): number {
    const input = this.#input;
    this.#ongoing.before(request);
    this.#replies.send();
    this.isInOne = true;
    let errno = 0;
    for (let done = 0; done < dataBytes; ) {
      if (isPiped && errno === 0 && input.length === 0) {
        this.#changes.hasWritten = true;
        done += this.#piped.move(request.offsetBytes + done, dataBytes - done, input);
        errno = this.#piped.errno;
        if (done === dataBytes) break;
      }
      const left = dataBytes - done;
      const pieceBytes = wholeBlocks(request.offsetBytes + done, Math.min(input.length, left), left);
      if (pieceBytes === 0) {
        const rest = input.length === 0 ? left : restOfBlock(request.offsetBytes + done + input.length);
        const received = this.#receive(Math.min(rest, left - input.length));
        if (received <= 0) return received;
        continue;
      }
      if (error === 0 && errno === 0) {
        this.#changes.hasWritten = true;
        errno = this.#image.write(request.offsetBytes + done, pieceBytes, input.bytes, input.start, false);
      }
      input.start += pieceBytes;
      done += pieceBytes;
    }
    this.isInOne = false;
    if ((request.flags & NBD_CMD_FLAG_FUA) !== 0 && error === 0 && errno === 0) errno = this.#image.flush();
    this.#replies.reply(request, error === 0 ? replyError(errno, request) : error);
    return 1;
  }

  close(): void {
    this.#piped.close();
  }
}
