import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_READ,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
} from './constants.js';
import { Coverage } from './coverage.js';
import { ProtocolError } from './errors.js';
import type { BlockSizes } from './export-info.js';
import { CHUNKS_MAX, ERROR_OFFSETS_MAX } from './limits.js';
import type { MetaContext } from './meta-context.js';
import type { ReplyStyle } from './reply.js';
import { type Chunk, chunkBytesMax, decodeChunk, must, type StatusExtent } from './reply-chunk.js';

/** What both sides settled on before the first request. */
export interface TransmissionTerms {
  readonly replyStyle: ReplyStyle;
  readonly sizeBytes: number;
  /** Those that were selected. */
  readonly contexts: readonly MetaContext[];
  readonly blockSizes: BlockSizes;
}

/** What of a request its reply is held against. */
export interface RequestedRange {
  readonly type: number;
  readonly flags: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** A whole reply that fits its request. */
export interface ServerReply {
  /** The first error that was reported, an NBD error value or another number; or 0. */
  readonly error: number;
  /** The server's words for a human, or ''. */
  readonly message: string;
  /** Where errors happened, as far as the server says so. */
  readonly errorOffsets: readonly number[];
  /** What was read; zeroes where nothing came because of an error. */
  readonly data: Uint8Array;
  /** The types of the chunks as they came; none for a simple reply. */
  readonly chunkTypes: readonly number[];
  /** The flags of all chunks together. */
  readonly chunkFlags: number;
  /** Of each context, by its id. */
  readonly extents: ReadonlyMap<number, readonly StatusExtent[]>;
}

/** A reply on its way, held against its request and what was negotiated; throws a ProtocolError at the first misfit. */
export class AwaitedReply {
  readonly #asked: RequestedRange;
  readonly #terms: TransmissionTerms;
  readonly #chunkTypes: number[] = [];
  readonly #errorOffsets: number[] = [];
  readonly #extents = new Map<number, readonly StatusExtent[]>();
  readonly #coverage = new Coverage();
  /** Of a READ; 0 if it asks for more than the server may send, and so gets an error. */
  readonly #dataBytes: number;
  #data: Uint8Array;
  #chunkFlags = 0;
  #contentChunks = 0;
  #error = 0;
  #message = '';

  constructor(asked: RequestedRange, terms: TransmissionTerms) {
    this.#asked = asked;
    this.#terms = terms;
    const dataBytesMax = Math.min(terms.sizeBytes, terms.blockSizes.maximumPayload);
    this.#dataBytes = asked.type === NBD_CMD_READ && asked.lengthBytes <= dataBytesMax ? asked.lengthBytes : 0;
    this.#data = new Uint8Array(this.#dataBytes);
  }

  /** The header of a simple reply; answers how many bytes of data follow, for `simpleData`. */
  simple(error: number): number {
    const { type, lengthBytes } = this.#asked;
    const { replyStyle } = this.#terms;
    must(replyStyle !== 'extended', 'no simple reply under extended headers');
    must(replyStyle === 'simple' || type !== NBD_CMD_READ, 'no simple reply to a READ once structured');
    must(error !== 0 || type !== NBD_CMD_BLOCK_STATUS, 'block status comes in chunks');
    must(this.#chunkTypes.length === 0, 'no simple reply among chunks');
    this.#error = error;
    if (error !== 0 || type !== NBD_CMD_READ) return 0;
    must(this.#dataBytes === lengthBytes, 'no more data than the maximum payload');
    return lengthBytes;
  }

  simpleData(data: Uint8Array): void {
    this.#data.set(data);
  }

  /** The header of a chunk, before its payload is taken. */
  chunkHeader(type: number, payloadBytes: number): void {
    if (this.#chunkTypes.length === CHUNKS_MAX || this.#errorOffsets.length > ERROR_OFFSETS_MAX) {
      throw new ProtocolError(
        'too-big',
        `the server sends a reply of more than ${CHUNKS_MAX} chunks, or ${ERROR_OFFSETS_MAX} errors`,
      );
    }
    if (type === NBD_REPLY_TYPE_OFFSET_DATA) must(this.#asked.type === NBD_CMD_READ, 'content answers a READ');
    if (type === NBD_REPLY_TYPE_BLOCK_STATUS || type === NBD_REPLY_TYPE_BLOCK_STATUS_EXT) {
      must(this.#asked.type === NBD_CMD_BLOCK_STATUS, 'status answers a BLOCK_STATUS');
    }
    if (payloadBytes <= chunkBytesMax(type, this.#dataBytes)) return;
    throw new ProtocolError(
      'violation',
      `the server announces a chunk of type ${type} with ${payloadBytes} bytes, which has no reason to be so long`,
    );
  }

  /** A whole chunk; answers whether it is the last. */
  chunk(flags: number, type: number, payload: Uint8Array): boolean {
    const isLast = (flags & NBD_REPLY_FLAG_DONE) !== 0;
    this.#chunkTypes.push(type);
    this.#chunkFlags |= flags;
    must(isLast || type !== NBD_REPLY_TYPE_NONE, 'NONE is DONE');
    this.#take(type, decodeChunk(type, payload));
    if (isLast) this.#checkWhole();
    return isLast;
  }

  finish(): ServerReply {
    return {
      error: this.#error,
      message: this.#message,
      errorOffsets: this.#errorOffsets,
      data: this.#data,
      chunkTypes: this.#chunkTypes,
      chunkFlags: this.#chunkFlags,
      extents: this.#extents,
    };
  }

  #take(type: number, chunk: Chunk): void {
    switch (chunk.kind) {
      case 'none':
        break;
      case 'data':
        this.#content(chunk.offsetBytes, chunk.data.length);
        this.#data.set(chunk.data, chunk.offsetBytes - this.#asked.offsetBytes);
        break;
      case 'hole':
        must(chunk.lengthBytes > 0, 'a hole is not empty');
        this.#content(chunk.offsetBytes, chunk.lengthBytes);
        break;
      case 'status':
        this.#status(type, chunk.contextId, chunk.extents);
        break;
      case 'error':
        this.#fail(chunk.error, chunk.message, chunk.offsetBytes);
        break;
    }
  }

  #content(from: number, lengthBytes: number): void {
    const { type, flags, offsetBytes } = this.#asked;
    const to = from + lengthBytes;
    must(type === NBD_CMD_READ, 'content answers a READ');
    must(from >= offsetBytes && to <= offsetBytes + this.#dataBytes, 'content lies in the bounds of the request');
    must((flags & NBD_CMD_FLAG_DF) === 0 || this.#contentChunks === 0, 'one content chunk with DF');
    must(!this.#errorOffsets.some((error) => from <= error && error < to), 'no content over an earlier error');
    must(this.#coverage.add(from, to), 'no overlap of content');
    this.#contentChunks += 1;
  }

  #status(type: number, id: number, extents: readonly StatusExtent[]): void {
    const { flags, lengthBytes } = this.#asked;
    const { contexts, replyStyle } = this.#terms;
    const isExtended = type === NBD_REPLY_TYPE_BLOCK_STATUS_EXT;
    must(isExtended || replyStyle === 'structured', 'BLOCK_STATUS only without extended headers');
    must(!isExtended || replyStyle === 'extended', 'BLOCK_STATUS_EXT only with extended headers');
    const isSelected = contexts.some((context) => context.id === id);
    must(isSelected, 'status is of a context that was selected');
    must(!this.#extents.has(id), 'one status chunk a context');
    let [sum, last] = [0, 0];
    for (const extent of extents) {
      must(extent.lengthBytes > 0, 'an extent is not empty');
      last = extent.lengthBytes;
      sum += last;
    }
    must(sum - last < lengthBytes, 'only the last extent goes beyond the request');
    if ((flags & NBD_CMD_FLAG_REQ_ONE) !== 0) {
      must(extents.length === 1 && sum <= lengthBytes, 'one extent within the request with REQ_ONE');
    }
    this.#extents.set(id, extents);
  }

  #fail(error: number, message: string, at: number | undefined): void {
    if (at !== undefined) {
      const { offsetBytes, lengthBytes } = this.#asked;
      must(at >= offsetBytes && at < offsetBytes + lengthBytes, 'an error lies in the bounds of the request');
      this.#errorOffsets.push(at);
    }
    if (this.#error === 0) this.#error = error;
    if (this.#message === '') this.#message = message;
  }

  #checkWhole(): void {
    const { type, lengthBytes } = this.#asked;
    if (this.#error !== 0) return;
    if (type === NBD_CMD_READ) {
      must(this.#coverage.coveredBytes === lengthBytes, 'content covers the whole request');
    }
    if (type === NBD_CMD_BLOCK_STATUS) {
      must(this.#extents.size === this.#terms.contexts.length, 'status of every context that was selected');
    }
  }
}
