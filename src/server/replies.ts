import { availableParallelism } from 'node:os';
import { invariant } from '../base/invariant.js';
import { alignedMemory, forget, PAGE_ALIGNMENT_BYTES } from '../kernel/memory.js';
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EXTENDED_REPLY_BYTES,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_ERROR_OFFSET,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
  NBD_SIMPLE_REPLY_BYTES,
  NBD_STRUCTURED_REPLY_BYTES,
} from '../protocol/constants.js';
import {
  type ReplyStyle,
  writeChunkHeader,
  writeContextId,
  writeError,
  writeExtendedChunkHeader,
  writeExtendedContextId,
  writeExtendedStatusDescriptor,
  writeHole,
  writeOffset,
  writeSimpleReply,
  writeStatusDescriptor,
} from '../protocol/reply.js';
import type { Request } from '../protocol/request.js';
import { putBytes, sendBytes } from './socket-bytes.js';

/**
 * Replies are sent when they come to this, which holds a READ of 256 KiB, and stays in the processor's cache. With one core the
 * client reads only when this thread waits: there eight of them at a time are faster.
 */
export const BATCH_BYTES = (availableParallelism() === 1 ? 2_097_152 : 262_144) + 65_536;
/** The buffer grows in such steps, so that it does so a few times at most. */
const STEP_BYTES = 1_048_576;
/** Of an NBD_REPLY_TYPE_OFFSET_DATA before its data, and of an NBD_REPLY_TYPE_ERROR without a message. */
const OFFSET_BYTES = 8;
const ERROR_BYTES = 6;
const HOLE_BYTES = 12;
const WRITES = [NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLUSH];
const NO_MESSAGE = new Uint8Array(0);

/** What is on its way while replies are sent. */
export interface OnItsWay {
  /** A client may let the send wait for as long as it likes: others must not wait for what is on its way. */
  settle(): void;
  /** After that: replies. Answers whether there were any. */
  answerSettled(): boolean;
}

/**
 * The replies of a connection, in the style that was negotiated: they wait side by side in one buffer until they are sent
 * with one write. A READ's data go right behind the header, which is written last, when it is known whether all of them
 * could be read. Nothing is allocated for a reply.
 */
export class Replies {
  /** The first errno of a send; from then on nothing is sent. */
  sendErrno = 0;
  /** Grows to the largest reply that was asked for, which request-rules bound. */
  bytes = alignedMemory(BATCH_BYTES, PAGE_ALIGNMENT_BYTES);
  #view = viewOf(this.bytes);
  #length = 0;
  readonly #socketFd: number;
  readonly #style: ReplyStyle;
  readonly #writeErrors: Int32Array;
  #onItsWay: OnItsWay | undefined;
  readonly #onFull = () => this.#onItsWay?.settle();
  /** Of the bytes before the data of a READ's reply. */
  readonly #dataHeaderBytes: number;
  readonly #chunkHeaderBytes: number;

  /** `writeErrors` is one field, written here: how many requests failed by which the client wanted to have something written. */
  constructor(socketFd: number, style: ReplyStyle, writeErrors: Int32Array) {
    this.#writeErrors = writeErrors;
    this.#socketFd = socketFd;
    this.#style = style;
    this.#chunkHeaderBytes = style === 'extended' ? NBD_EXTENDED_REPLY_BYTES : NBD_STRUCTURED_REPLY_BYTES;
    this.#dataHeaderBytes = style === 'simple' ? NBD_SIMPLE_REPLY_BYTES : this.#chunkHeaderBytes + OFFSET_BYTES;
  }

  /** From here on the socket does not block. */
  sendBeside(others: OnItsWay): void {
    this.#onItsWay = others;
  }

  /** Sends what waits. False: it cannot be sent, and nothing ever again. */
  send(): boolean {
    while (this.sendErrno === 0 && this.#length > 0) {
      this.sendErrno = -sendBytes(this.#socketFd, this.bytes, this.#length, this.#onFull);
      this.#length = 0;
      if (this.#onItsWay?.answerSettled() !== true) break;
    }
    this.#length = 0;
    return this.sendErrno === 0;
  }

  /** Sends those that wait if they would be sent for the sake of a READ's reply; answers whether it did. */
  sendUnlessFits(lengthBytes: number): boolean {
    return this.#sendUnlessFit(this.#dataHeaderBytes + lengthBytes);
  }

  /** Puts what waits, a header, into a pipe that does not wait. Answers how many bytes that is; 0: it is full, and the header waits on. */
  putInto(pipeWriteFd: number): number {
    const put = putBytes(pipeWriteFd, this.bytes, this.#length);
    if (put > 0) this.#length = 0;
    return put;
  }

  /** Gives the buffer's memory back; nothing may wait in it. */
  relax(): void {
    invariant(this.#length === 0, 'replies are sent before a long wait');
    forget(this.bytes);
  }

  /** Makes room for data and its header; answers where in `bytes` the data go, or -1 where nothing can be sent any more. */
  roomForData(lengthBytes: number): number {
    return this.#makeRoom(this.#dataHeaderBytes + lengthBytes) ? this.#length + this.#dataHeaderBytes : -1;
  }

  /** The reply, or with `last` false a chunk of it, whose data are in their place. */
  data(request: Readonly<Request>, offsetBytes: number, lengthBytes: number, last: boolean): void {
    this.dataHeader(request, offsetBytes, lengthBytes, last);
    this.#length += lengthBytes;
  }

  /** The reply to a READ whose data lie in `source`, from `at` on. */
  copyOf(request: Readonly<Request>, source: Buffer, at: number): void {
    const { offsetBytes, lengthBytes } = request;
    const to = this.roomForData(lengthBytes);
    if (to < 0) return;
    source.copy(this.bytes, to, at, at + lengthBytes);
    this.data(request, offsetBytes, lengthBytes, true);
  }

  /** The same for data that go to the socket some other way, right after a send. Room was made by roomForData. */
  dataHeader(request: Readonly<Request>, offsetBytes: number, lengthBytes: number, last: boolean): void {
    if (this.#style === 'simple') {
      this.#length = writeSimpleReply(this.#view, this.#length, 0, request.cookieHigh, request.cookieLow);
      return;
    }
    this.#chunk(request, last, NBD_REPLY_TYPE_OFFSET_DATA, OFFSET_BYTES + lengthBytes);
    this.#length = writeOffset(this.#view, this.#length, offsetBytes);
  }

  /** A chunk that says that a part of what was asked for is zeroes. Not in simple style. */
  hole(request: Readonly<Request>, offsetBytes: number, lengthBytes: number, last: boolean): void {
    if (!this.#makeRoom(this.#chunkHeaderBytes + HOLE_BYTES)) return;
    this.#chunk(request, last, NBD_REPLY_TYPE_OFFSET_HOLE, HOLE_BYTES);
    this.#length = writeHole(this.#view, this.#length, offsetBytes, lengthBytes);
  }

  /** The reply to a request that is done, or with an NBD error value is not. */
  reply(request: Readonly<Request>, error: number): void {
    if (error !== 0 && WRITES.includes(request.type)) Atomics.add(this.#writeErrors, 0, 1);
    if (!this.#makeRoom(this.#chunkHeaderBytes + ERROR_BYTES)) return;
    if (!this.#isChunked(request.type)) {
      this.#length = writeSimpleReply(this.#view, this.#length, error, request.cookieHigh, request.cookieLow);
      return;
    }
    this.#chunk(request, true, error === 0 ? NBD_REPLY_TYPE_NONE : NBD_REPLY_TYPE_ERROR, error === 0 ? 0 : ERROR_BYTES);
    if (error !== 0) this.#length = writeError(this.#view, this.#length, error, NO_MESSAGE);
  }

  /** The last chunk of a READ that failed at `offsetBytes`, behind chunks that were read. */
  errorAt(request: Readonly<Request>, error: number, offsetBytes: number): void {
    if (!this.#makeRoom(this.#chunkHeaderBytes + ERROR_BYTES + OFFSET_BYTES)) return;
    this.#chunk(request, true, NBD_REPLY_TYPE_ERROR_OFFSET, ERROR_BYTES + OFFSET_BYTES);
    this.#length = writeError(this.#view, this.#length, error, NO_MESSAGE);
    this.#length = writeOffset(this.#view, this.#length, offsetBytes);
  }

  /** The chunk of one metadata context: `count` extents, each a length and its NBD_STATE_… flags. */
  status(
    request: Readonly<Request>,
    contextId: number,
    count: number,
    lengths: Float64Array,
    states: Uint32Array,
    last: boolean,
  ): void {
    const extended = this.#style === 'extended';
    const payloadBytes = extended ? 8 + 16 * count : 4 + 8 * count;
    if (!this.#makeRoom(this.#chunkHeaderBytes + payloadBytes)) return;
    this.#chunk(request, last, extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT : NBD_REPLY_TYPE_BLOCK_STATUS, payloadBytes);
    const view = this.#view;
    let at = extended
      ? writeExtendedContextId(view, this.#length, contextId, count)
      : writeContextId(view, this.#length, contextId);
    const write = extended ? writeExtendedStatusDescriptor : writeStatusDescriptor;
    for (let index = 0; index < count; index += 1) at = write(view, at, lengths[index] ?? 0, states[index] ?? 0);
    this.#length = at;
  }

  /** In structured style what has no data to bring is answered simply, which is shorter. */
  #isChunked(type: number): boolean {
    if (this.#style === 'structured') return type === NBD_CMD_READ || type === NBD_CMD_BLOCK_STATUS;
    return this.#style === 'extended';
  }

  #chunk(request: Readonly<Request>, last: boolean, type: number, payloadBytes: number): void {
    const { cookieHigh, cookieLow } = request;
    const flags = last ? NBD_REPLY_FLAG_DONE : 0;
    this.#length =
      this.#style === 'extended'
        ? writeExtendedChunkHeader(
            this.#view,
            this.#length,
            flags,
            type,
            cookieHigh,
            cookieLow,
            request.offsetHigh,
            request.offsetLow,
            payloadBytes,
          )
        : writeChunkHeader(this.#view, this.#length, flags, type, cookieHigh, cookieLow, payloadBytes);
  }

  #sendUnlessFit(bytes: number): boolean {
    if (this.#length === 0 || this.#length + bytes <= BATCH_BYTES) return false;
    this.send();
    return true;
  }

  /** By sending those that wait, or by a larger buffer. False: nothing can be sent any more. */
  #makeRoom(bytes: number): boolean {
    this.#sendUnlessFit(bytes);
    if (bytes > this.bytes.length) {
      this.bytes = alignedMemory(Math.ceil(bytes / STEP_BYTES) * STEP_BYTES, PAGE_ALIGNMENT_BYTES);
      this.#view = viewOf(this.bytes);
    }
    return this.sendErrno === 0;
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
