import type { Image } from '../image/image.js';
import { NBD_CMD_FLAG_FUA } from '../protocol/constants.js';
import { replyError } from '../protocol/reply.js';
import type { Request } from '../protocol/request.js';
import type { Changes } from './changes.js';
import type { Ongoing } from './ongoing.js';
import type { Replies } from './replies.js';
import type { RequestInput } from './request-input.js';
import { restOfBlock, wholeBlocks } from './whole-blocks.js';

/** WRITEs longer than the input, which go to the image as they come. */
export class LargeWrites {
  /** A part of one has come. */
  isInOne = false;
  readonly #image: Image;
  readonly #input: RequestInput;
  readonly #replies: Replies;
  readonly #changes: Changes;
  readonly #ongoing: Ongoing;
  readonly #receive: (missingBytes: number) => number;

  /** `receive` waits for some of the bytes that are missing, puts them into `input`, and answers how many, 0 at the end, or −errno. */
  constructor(
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
    this.#receive = receive;
  }

  /** Does one, or with an `error` throws a request's data away. Answers 1, 0 where the stream ends before the request does, or −errno. */
  answer(request: Readonly<Request>, error: number, dataBytes: number): number {
    const input = this.#input;
    this.#ongoing.before(request);
    this.#replies.send();
    this.isInOne = true;
    let errno = 0;
    for (let done = 0; done < dataBytes; ) {
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
}
