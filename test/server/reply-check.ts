import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_READ,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_EIO,
  NBD_ENOMEM,
  NBD_ENOSPC,
  NBD_ENOTSUP,
  NBD_EOVERFLOW,
  NBD_EPERM,
  NBD_ESHUTDOWN,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_ERROR_OFFSET,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
  NBD_STATE_HOLE,
  NBD_STATE_ZERO,
  NBD_STATUS_DESCRIPTORS_MAX,
} from '#tsnbd/protocol/constants.js';
import { type BlockSizes, DEFAULT_BLOCK_SIZES } from '#tsnbd/protocol/export-info.js';
import type { MetaContext } from '#tsnbd/protocol/meta-context.js';
import type { ReplyStyle } from '#tsnbd/protocol/reply.js';

/** What both sides settled on before the first request. */
export interface Agreement {
  readonly replyStyle: ReplyStyle;
  readonly sizeBytes: number;
  readonly contexts: readonly MetaContext[];
  readonly blockSizes: BlockSizes;
}

/** An agreement without a handshake. */
export function agreement(replyStyle: ReplyStyle, sizeBytes: number, contexts: readonly MetaContext[] = []): Agreement {
  return { replyStyle, sizeBytes, contexts, blockSizes: DEFAULT_BLOCK_SIZES };
}

/** What of a request its reply is held against. */
export interface AskedFor {
  readonly type: number;
  readonly flags: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

export interface Extent {
  readonly lengthBytes: number;
  readonly status: number;
}

/** A reply that obeys the specification. */
export interface CheckedReply {
  /** The first error that was reported, or 0. */
  readonly error: number;
  readonly message: string;
  /** Of NBD_REPLY_TYPE_ERROR_OFFSET chunks. */
  readonly errorOffsets: readonly number[];
  /** What was read; zeroes where nothing came. */
  readonly data: Buffer;
  /** The types of the chunks as they came; none for a simple reply. */
  readonly chunkTypes: readonly number[];
  /** Of each context, by its id. */
  readonly extents: ReadonlyMap<number, readonly Extent[]>;
}

const ERRORS = [NBD_EPERM, NBD_EIO, NBD_ENOMEM, NBD_EINVAL, NBD_ENOSPC, NBD_EOVERFLOW, NBD_ENOTSUP, NBD_ESHUTDOWN];

/**
 * One reply on its way, held against every MUST of the specification (proto.md, 'Structured reply types', 'Request
 * types'): throws at the first breach.
 */
export class ReplyCheck {
  readonly #asked: AskedFor;
  readonly #agreed: Agreement;
  readonly #chunkTypes: number[] = [];
  readonly #errorOffsets: number[] = [];
  readonly #extents = new Map<number, readonly Extent[]>();
  /** What content chunks cover. */
  readonly #covered: { readonly from: number; readonly to: number }[] = [];
  #coveredTo = 0;
  #data: Buffer = Buffer.alloc(0);
  #error = 0;
  #message = '';

  constructor(asked: AskedFor, agreed: Agreement) {
    this.#asked = asked;
    this.#agreed = agreed;
    // A READ that is refused may ask for more than there is memory.
    const dataBytesMax = Math.min(agreed.sizeBytes, agreed.blockSizes.maximumPayload);
    if (asked.type === NBD_CMD_READ && asked.lengthBytes <= dataBytesMax) this.#data = Buffer.alloc(asked.lengthBytes);
  }

  /** A whole simple reply but its data. */
  simple(error: number): void {
    const { type } = this.#asked;
    must(this.#agreed.replyStyle !== 'extended', 'no simple reply under extended headers');
    must(this.#agreed.replyStyle === 'simple' || type !== NBD_CMD_READ, 'no simple reply to a READ once structured');
    must(error !== 0 || type !== NBD_CMD_BLOCK_STATUS, 'block status comes in chunks');
    must(this.#chunkTypes.length === 0, 'no simple reply among chunks');
    if (error !== 0) this.#fail(error);
  }

  /** The data of a simple reply to a READ. */
  simpleData(data: Buffer): void {
    this.#data = data;
  }

  /** A chunk; answers whether it is the last. */
  chunk(flags: number, type: number, payload: Buffer): boolean {
    must((flags & ~NBD_REPLY_FLAG_DONE) === 0, `no unknown flag (0x${flags.toString(16)})`);
    this.#chunkTypes.push(type);
    const done = (flags & NBD_REPLY_FLAG_DONE) !== 0;
    this.#payload(type, payload, done);
    if (done) this.#checkWhole();
    return done;
  }

  finish(): CheckedReply {
    return {
      error: this.#error,
      message: this.#message,
      errorOffsets: this.#errorOffsets,
      data: this.#data,
      chunkTypes: this.#chunkTypes,
      extents: this.#extents,
    };
  }

  #payload(type: number, payload: Buffer, done: boolean): void {
    switch (type) {
      case NBD_REPLY_TYPE_NONE:
        must(done && payload.length === 0, 'NONE is DONE and has no payload');
        break;
      case NBD_REPLY_TYPE_OFFSET_DATA:
        this.#offsetData(payload);
        break;
      case NBD_REPLY_TYPE_OFFSET_HOLE:
        this.#offsetHole(payload);
        break;
      case NBD_REPLY_TYPE_BLOCK_STATUS:
        this.#blockStatus(payload);
        break;
      case NBD_REPLY_TYPE_BLOCK_STATUS_EXT:
        this.#extendedBlockStatus(payload);
        break;
      case NBD_REPLY_TYPE_ERROR:
        must(!this.#chunkTypes.slice(0, -1).includes(type), 'one ERROR a reply');
        this.#errorChunk(payload, 0);
        break;
      case NBD_REPLY_TYPE_ERROR_OFFSET:
        this.#errorOffset(payload);
        break;
      default:
        must(false, `no chunk of type ${type}`);
    }
  }

  #offsetData(payload: Buffer): void {
    must(payload.length >= 9, 'OFFSET_DATA has data');
    must(payload.length - 8 <= this.#agreed.blockSizes.maximumPayload, 'no more data than the maximum payload');
    const offsetBytes = u64(payload, 0);
    const dataBytes = payload.length - 8;
    this.#content(offsetBytes, dataBytes);
    payload.copy(this.#data, offsetBytes - this.#asked.offsetBytes, 8);
  }

  #offsetHole(payload: Buffer): void {
    must(payload.length === 12, 'OFFSET_HOLE has 12 bytes');
    const holeBytes = payload.readUInt32BE(8);
    must(holeBytes > 0, 'a hole is not empty');
    this.#content(u64(payload, 0), holeBytes);
  }

  #content(from: number, lengthBytes: number): void {
    const { type, flags, offsetBytes } = this.#asked;
    const to = from + lengthBytes;
    must(type === NBD_CMD_READ, 'content answers a READ');
    must(
      from >= offsetBytes && to <= offsetBytes + this.#asked.lengthBytes,
      'content lies in the bounds of the request',
    );
    must((flags & NBD_CMD_FLAG_DF) === 0 || this.#covered.length === 0, 'one content chunk with DF');
    must(!this.#errorOffsets.some((error) => from <= error && error < to), 'no content over an earlier error');
    // Most chunks come in their order: only one out of it is compared with all.
    if (from < this.#coveredTo) {
      must(!this.#covered.some((other) => from < other.to && other.from < to), 'no overlap of content');
    }
    this.#coveredTo = Math.max(this.#coveredTo, to);
    this.#covered.push({ from, to });
  }

  #blockStatus(payload: Buffer): void {
    must(this.#agreed.replyStyle === 'structured', 'BLOCK_STATUS only without extended headers');
    const count = (payload.length - 4) / 8;
    must(count >= 1 && Number.isInteger(count), 'BLOCK_STATUS has whole descriptors');
    const extents = Array.from({ length: count }, (_, index) => ({
      lengthBytes: payload.readUInt32BE(4 + 8 * index),
      status: payload.readUInt32BE(8 + 8 * index),
    }));
    this.#status(payload.readUInt32BE(0), extents);
  }

  #extendedBlockStatus(payload: Buffer): void {
    must(this.#agreed.replyStyle === 'extended', 'BLOCK_STATUS_EXT only with extended headers');
    const count = (payload.length - 8) / 16;
    must(count >= 1 && Number.isInteger(count), 'BLOCK_STATUS_EXT has whole descriptors');
    must(payload.readUInt32BE(4) === count, 'BLOCK_STATUS_EXT tells the number of its descriptors');
    const extents = Array.from({ length: count }, (_, index) => ({
      lengthBytes: u64(payload, 8 + 16 * index),
      status: u64(payload, 16 + 16 * index),
    }));
    this.#status(payload.readUInt32BE(0), extents);
  }

  #status(id: number, extents: readonly Extent[]): void {
    const { type, flags, offsetBytes, lengthBytes } = this.#asked;
    const { contexts, blockSizes, sizeBytes } = this.#agreed;
    must(type === NBD_CMD_BLOCK_STATUS, 'status answers a BLOCK_STATUS');
    must(
      contexts.some((context) => context.id === id),
      'status is of a context that was selected',
    );
    must(!this.#extents.has(id), 'one status chunk a context');
    must(extents.length <= NBD_STATUS_DESCRIPTORS_MAX, 'at most 2^20 descriptors');
    must(
      extents.every((extent) => extent.lengthBytes > 0 && extent.lengthBytes % blockSizes.minimum === 0),
      'an extent has whole blocks',
    );
    must(
      extents.every(({ status }) => (status & ~(NBD_STATE_HOLE | NBD_STATE_ZERO)) === 0 && status < 4),
      'no unknown status',
    );
    const sum = extents.reduce((bytes, extent) => bytes + extent.lengthBytes, 0);
    must(sum - (extents.at(-1)?.lengthBytes ?? 0) < lengthBytes, 'only the last extent goes beyond the request');
    must(offsetBytes + sum <= sizeBytes, 'no extent goes beyond the export');
    if ((flags & NBD_CMD_FLAG_REQ_ONE) !== 0) {
      must(extents.length === 1 && sum <= lengthBytes, 'one extent within the request with REQ_ONE');
    }
    this.#extents.set(id, extents);
  }

  #errorOffset(payload: Buffer): void {
    this.#errorChunk(payload, 8);
    const offset = u64(payload, payload.length - 8);
    const { offsetBytes, lengthBytes } = this.#asked;
    must(offset >= offsetBytes && offset < offsetBytes + lengthBytes, 'an error lies in the bounds of the request');
    this.#errorOffsets.push(offset);
  }

  #errorChunk(payload: Buffer, behindMessage: number): void {
    must(payload.length >= 6 + behindMessage, 'an error is whole');
    const messageBytes = payload.readUInt16BE(4);
    must(messageBytes <= 4096 && 6 + messageBytes + behindMessage === payload.length, 'the text fits into its chunk');
    const message = new TextDecoder('utf-8', { fatal: true }).decode(payload.subarray(6, 6 + messageBytes));
    must(!message.includes('\0'), 'no NUL in a text');
    this.#fail(payload.readUInt32BE(0));
    if (this.#message === '') this.#message = message;
  }

  #fail(error: number): void {
    const { type, flags } = this.#asked;
    must(ERRORS.includes(error), `no error ${error}`);
    const fast = type === NBD_CMD_WRITE_ZEROES && (flags & NBD_CMD_FLAG_FAST_ZERO) !== 0;
    must(error !== NBD_ENOTSUP || fast, 'ENOTSUP answers only FAST_ZERO');
    const whole = type === NBD_CMD_READ && (flags & NBD_CMD_FLAG_DF) !== 0;
    must(error !== NBD_EOVERFLOW || whole, 'EOVERFLOW answers only DF');
    if (this.#error === 0) this.#error = error;
  }

  #checkWhole(): void {
    if (this.#error !== 0) return;
    const { type, lengthBytes } = this.#asked;
    if (type === NBD_CMD_READ) {
      const covered = this.#covered.reduce((bytes, { from, to }) => bytes + to - from, 0);
      must(covered === lengthBytes, 'content covers the whole request');
    }
    if (type === NBD_CMD_BLOCK_STATUS) {
      must(this.#extents.size === this.#agreed.contexts.length, 'status of every context that was selected');
    }
  }
}

function u64(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4);
}

function must(kept: boolean, rule: string): void {
  if (!kept) throw new Error(`the server breaks a rule: ${rule}`);
}
