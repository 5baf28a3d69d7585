import { invariant } from '../base/invariant.js';
import { type Image, ZERO_MAY_PUNCH } from '../image/image.js';
import { errnoText } from '../kernel/errno.js';
import {
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_REQUEST_BYTES,
  NBD_SIMPLE_REPLY_BYTES,
} from '../protocol/constants.js';
import { replyError, writeSimpleReply } from '../protocol/reply.js';
import { decodeRequest, emptyRequest, payloadBytes } from '../protocol/request.js';
import { checkRequest, type ExportRules, endsConnection } from '../protocol/request-rules.js';
import type { ServerErrorCode } from './errors.js';
import { receiveBytes, sendBytes } from './socket-bytes.js';

/** What one connection is made of. */
export interface Connection {
  /** Blocking; stays the caller's. */
  readonly socketFd: number;
  readonly image: Image;
  readonly rules: ExportRules;
  /** Requests that came with the handshake, at most INPUT_BYTES. */
  readonly received: Uint8Array;
  /** One field: not 0 once the connection is to end. The main thread writes it, the loop looks once a batch. */
  readonly stop: Int32Array;
}

/** How the loop ended, as plain data that crosses threads. */
export type LoopEnd =
  | { readonly kind: 'left'; readonly how: 'disconnected' | 'closed' | 'stopped' }
  | { readonly kind: 'failed'; readonly code: ServerErrorCode; readonly message: string };

/** A larger WRITE goes to the image in pieces of this size as it arrives. */
export const INPUT_BYTES = 1_048_576;
/** Replies are sent when they come to this: a batch stays in the processor's cache. Holds a READ of 256 KiB. */
export const BATCH_BYTES = 262_144 + 4_096;
/** The reply buffer grows in such steps, so that it does so a few times at most. */
const OUTPUT_STEP_BYTES = 1_048_576;

/**
 * Serves one connection to its end, on a thread of its own: reads as many requests as the socket holds, answers all of
 * them with one write, and blocks in between. A reply's data lies right behind its header, so that the image reads
 * straight into what is sent. Nothing is thrown and nothing allocated for a request.
 */
export function serveRequests(connection: Connection): LoopEnd {
  const loop = new RequestLoop(connection);
  const end = loop.run();
  const errno = loop.flushWhatWasWritten();
  if (errno === 0) return end;
  return failed('system', `what the client wrote could not be flushed: ${errnoText(errno)}`);
}

class RequestLoop {
  readonly #socketFd: number;
  readonly #image: Image;
  readonly #rules: ExportRules;
  readonly #stop: Int32Array;
  readonly #request = emptyRequest();
  readonly #input = Buffer.allocUnsafeSlow(INPUT_BYTES);
  readonly #inputView = viewOf(this.#input);
  /** What is received and not taken yet: from #start to #end of #input. */
  #start = 0;
  #end: number;
  /** Grows to the largest reply that was asked for, which request-rules bound. */
  #output = Buffer.allocUnsafeSlow(BATCH_BYTES);
  #outputView = viewOf(this.#output);
  #outputBytes = 0;
  #hasWritten = false;
  /** 0, or why the socket cannot be written to. */
  #sendErrno = 0;

  constructor({ socketFd, image, rules, received, stop }: Connection) {
    invariant(received.length <= INPUT_BYTES, 'what came with the handshake fits into the input buffer');
    this.#socketFd = socketFd;
    this.#image = image;
    this.#rules = rules;
    this.#stop = stop;
    this.#input.set(received);
    this.#end = received.length;
  }

  run(): LoopEnd {
    for (;;) {
      const end = this.#answerWhatIsThere();
      this.#sendReplies();
      if (end !== undefined) return end;
      if (this.#sendErrno !== 0) return lost(this.#sendErrno);
      if (Atomics.load(this.#stop, 0) !== 0) return STOPPED;
      const received = this.#receiveMore();
      if (received < 0) return lost(-received);
      if (received === 0) return this.#endOfStream();
    }
  }

  flushWhatWasWritten(): number {
    return this.#hasWritten ? this.#image.flush() : 0;
  }

  /** Answers every request that is there as a whole, and one that never can be. */
  #answerWhatIsThere(): LoopEnd | undefined {
    const request = this.#request;
    while (this.#end - this.#start >= NBD_REQUEST_BYTES && this.#sendErrno === 0) {
      if (!decodeRequest(this.#inputView, this.#start, request)) return GARBAGE;
      if (request.type === NBD_CMD_DISC) return DISCONNECTED;
      const dataBytes = payloadBytes(request, this.#rules.replyStyle);
      const error = checkRequest(request, this.#rules);
      if (endsConnection(request, this.#rules.replyStyle)) {
        this.#replyWithoutData(error);
        return failed('violation', `the client announced ${dataBytes} bytes of data with a request`);
      }
      const wholeBytes = NBD_REQUEST_BYTES + dataBytes;
      if (wholeBytes > this.#end - this.#start && wholeBytes <= INPUT_BYTES) return undefined;
      this.#start += NBD_REQUEST_BYTES;
      if (request.type === NBD_CMD_READ && error === 0) this.#read();
      else if (request.type === NBD_CMD_WRITE && wholeBytes > INPUT_BYTES) {
        const end = this.#writeInPieces(error);
        if (end !== undefined) return end;
      } else {
        this.#replyWithoutData(error === 0 ? replyError(this.#change(), request) : error);
        this.#start += dataBytes;
      }
    }
    return undefined;
  }

  /** The header is written last, when it is known whether all of the data could be read. */
  #read(): void {
    const { offsetBytes, lengthBytes, cookieHigh, cookieLow } = this.#request;
    if (!this.#makeRoom(NBD_SIMPLE_REPLY_BYTES + lengthBytes)) return;
    const dataAt = this.#outputBytes + NBD_SIMPLE_REPLY_BYTES;
    const errno = lengthBytes === 0 ? 0 : this.#image.read(offsetBytes, lengthBytes, this.#output, dataAt);
    writeSimpleReply(this.#outputView, this.#outputBytes, replyError(errno, this.#request), cookieHigh, cookieLow);
    this.#outputBytes = errno === 0 ? dataAt + lengthBytes : dataAt;
  }

  /** Does a request that changes or flushes the image; a WRITE's data begin at #start. Answers 0 or a positive errno. */
  #change(): number {
    const { type, flags, offsetBytes, lengthBytes } = this.#request;
    const durable = (flags & NBD_CMD_FLAG_FUA) !== 0;
    // Stable storage takes long: what is answered already need not wait for it.
    if (durable || type === NBD_CMD_FLUSH) this.#sendReplies();
    if (type === NBD_CMD_FLUSH) return this.#image.flush();
    if (lengthBytes === 0 || type === NBD_CMD_CACHE) return 0;
    this.#hasWritten = true;
    if (type === NBD_CMD_WRITE) return this.#image.write(offsetBytes, lengthBytes, this.#input, this.#start, durable);
    if (type === NBD_CMD_TRIM) return this.#image.trim(offsetBytes, lengthBytes, durable);
    return this.#image.zero(
      offsetBytes,
      lengthBytes,
      (flags & NBD_CMD_FLAG_NO_HOLE) === 0 ? ZERO_MAY_PUNCH : 0,
      durable,
    );
  }

  /** A WRITE longer than the input buffer, or, with an `error`, the throwing away of its data. */
  #writeInPieces(error: number): LoopEnd | undefined {
    const { flags, offsetBytes, lengthBytes } = this.#request;
    this.#sendReplies();
    let errno = 0;
    for (let done = 0; done < lengthBytes; ) {
      if (this.#start === this.#end) {
        const received = this.#receiveMore();
        if (received < 0) return lost(-received);
        if (received === 0) return HALF_A_REQUEST;
      }
      const pieceBytes = Math.min(this.#end - this.#start, lengthBytes - done);
      if (error === 0 && errno === 0) {
        this.#hasWritten = true;
        errno = this.#image.write(offsetBytes + done, pieceBytes, this.#input, this.#start, false);
      }
      this.#start += pieceBytes;
      done += pieceBytes;
    }
    if ((flags & NBD_CMD_FLAG_FUA) !== 0 && error === 0 && errno === 0) errno = this.#image.flush();
    this.#replyWithoutData(error === 0 ? replyError(errno, this.#request) : error);
    return undefined;
  }

  #replyWithoutData(error: number): void {
    if (!this.#makeRoom(NBD_SIMPLE_REPLY_BYTES)) return;
    const { cookieHigh, cookieLow } = this.#request;
    this.#outputBytes = writeSimpleReply(this.#outputView, this.#outputBytes, error, cookieHigh, cookieLow);
  }

  /** Makes room for one more reply: by sending those that are ready, or by a larger buffer. False: they cannot be sent. */
  #makeRoom(bytes: number): boolean {
    if (this.#outputBytes + bytes > BATCH_BYTES) this.#sendReplies();
    if (bytes > this.#output.length) {
      this.#output = Buffer.allocUnsafeSlow(Math.ceil(bytes / OUTPUT_STEP_BYTES) * OUTPUT_STEP_BYTES);
      this.#outputView = viewOf(this.#output);
    }
    return this.#sendErrno === 0;
  }

  #sendReplies(): void {
    if (this.#sendErrno === 0) this.#sendErrno = -sendBytes(this.#socketFd, this.#output, this.#outputBytes);
    this.#outputBytes = 0;
  }

  /** Moves the beginning of a request to the front and waits for more behind it. */
  #receiveMore(): number {
    if (this.#start > 0) {
      this.#input.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    const received = receiveBytes(this.#socketFd, this.#input, this.#end, INPUT_BYTES - this.#end);
    if (received > 0) this.#end += received;
    return received;
  }

  #endOfStream(): LoopEnd {
    if (Atomics.load(this.#stop, 0) !== 0) return STOPPED;
    return this.#start === this.#end ? CLOSED : HALF_A_REQUEST;
  }
}

const DISCONNECTED: LoopEnd = { kind: 'left', how: 'disconnected' };
const CLOSED: LoopEnd = { kind: 'left', how: 'closed' };
const STOPPED: LoopEnd = { kind: 'left', how: 'stopped' };
const GARBAGE = failed('violation', 'the client sent something else where a request should begin');
const HALF_A_REQUEST = failed('lost', 'the client left in the middle of a request');

function lost(errno: number): LoopEnd {
  return failed('lost', `the connection was lost: ${errnoText(errno)}`);
}

function failed(code: ServerErrorCode, message: string): LoopEnd {
  return { kind: 'failed', code, message };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
