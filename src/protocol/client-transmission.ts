import { AwaitedReply, type ServerReply, type TransmissionTerms } from './awaited-reply.js';
import {
  NBD_CMD_DISC,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_WRITE,
  NBD_EXTENDED_REPLY_BYTES,
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_EXTENDED_REQUEST_BYTES,
  NBD_REQUEST_BYTES,
  NBD_SIMPLE_REPLY_BYTES,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_BYTES,
  NBD_STRUCTURED_REPLY_MAGIC,
} from './constants.js';
import { ProtocolError } from './errors.js';
import { PeerInput } from './peer-input.js';
import { broken, must } from './reply-chunk.js';
import { encodeExtendedRequest, encodeRequest } from './request.js';

/** A request as our client makes it; the lengths and flags are the caller's to choose well. */
export interface ClientRequest {
  /** NBD_CMD_… */
  readonly type: number;
  readonly flags?: number;
  readonly offsetBytes?: number;
  /** Absent: as much as there are data. */
  readonly lengthBytes?: number;
  /** Of a WRITE. */
  readonly data?: Uint8Array;
}

/** A request to send; its reply comes back under the number. */
export interface EncodedRequest {
  readonly number: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** The replies that are whole now, and the failure after which the server is not understood any more. */
export interface TransmissionStep {
  readonly replies: readonly { readonly number: number; readonly reply: ServerReply }[];
  readonly failure?: ProtocolError;
}

interface Pending {
  readonly number: number;
  readonly reply: AwaitedReply;
  /** The offset's halves as they were sent: an extended reply brings them back. */
  readonly offset: readonly [high: number, low: number];
}

interface State {
  readonly needBytes: number;
  readonly act: (bytes: Uint8Array) => State;
}

/** The upper half of every cookie of ours; the lower is the request's number. */
const COOKIE_HIGH = 0xc0ffee00;
const MAGIC_BYTES = 4;
const NUMBER_MAX = 0xffffffff;
const NO_DATA = new Uint8Array(0);

/**
 * The client's side of the transmission (proto.md, 'Transmission'), without I/O: makes requests, takes the server's bytes in
 * any pieces, gives whole replies. Everything a server does becomes a reply or a failure; every length it sends is bounded
 * before memory is taken for it. How many requests wait at a time is the caller's to bound.
 */
export class ClientTransmission {
  readonly #terms: TransmissionTerms;
  readonly #pending = new Map<number, Pending>();
  readonly #input = new PeerInput();
  readonly #magic: State = { needBytes: MAGIC_BYTES, act: (bytes) => this.#replyMagic(bytes) };
  #state = this.#magic;
  #replies: { readonly number: number; readonly reply: ServerReply }[] = [];
  #lastNumber = 0;
  #failure: ProtocolError | undefined;

  constructor(terms: TransmissionTerms) {
    this.#terms = terms;
  }

  /** Requests whose replies are still to come. */
  get awaitedReplies(): number {
    return this.#pending.size;
  }

  get bufferedBytes(): number {
    return this.#input.bufferedBytes;
  }

  /** The bytes of a request, whose reply is awaited from now on; NBD_CMD_DISC has none. */
  encode(request: ClientRequest): EncodedRequest {
    const { type, offsetBytes = 0, data = NO_DATA } = request;
    const lengthBytes = request.lengthBytes ?? data.length;
    const isExtended = this.#terms.replyStyle === 'extended';
    const flags = (request.flags ?? 0) | (isExtended && type === NBD_CMD_WRITE ? NBD_CMD_FLAG_PAYLOAD_LEN : 0);
    const number = this.#nextNumber();
    const headerBytes = isExtended ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES;
    const bytes = new Uint8Array(headerBytes + data.length);
    const view = new DataView(bytes.buffer);
    const fields = { flags, type, cookieHigh: COOKIE_HIGH, cookieLow: number, offsetBytes, lengthBytes };
    if (isExtended) encodeExtendedRequest(view, 0, fields);
    else encodeRequest(view, 0, fields);
    bytes.set(data, headerBytes);
    if (type !== NBD_CMD_DISC) {
      const reply = new AwaitedReply({ type, flags, offsetBytes, lengthBytes }, this.#terms);
      this.#pending.set(number, { number, reply, offset: [view.getUint32(16), view.getUint32(20)] });
    }
    return { number, bytes };
  }

  /** Takes the next bytes of the server; after a failure they mean nothing. */
  receive(piece: Uint8Array): TransmissionStep {
    if (this.#failure !== undefined) return { replies: [], failure: this.#failure };
    this.#input.give(piece);
    try {
      for (let bytes = this.#nextBytes(); bytes !== undefined; bytes = this.#nextBytes()) {
        this.#state = this.#state.act(bytes);
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#failure = error;
    }
    const replies = this.#replies;
    this.#replies = [];
    return this.#failure === undefined ? { replies } : { replies, failure: this.#failure };
  }

  /** The server has closed the connection: what is wrong with that, if anything is. */
  end(): ProtocolError | undefined {
    const isCut = this.#state !== this.#magic || this.#input.holdsPart;
    if (this.#failure === undefined && (isCut || this.#pending.size > 0)) {
      const when = isCut ? 'in the middle of a reply' : 'and left requests without an answer';
      this.#failure = new ProtocolError('closed', `the server closed the connection ${when}`);
    }
    return this.#failure;
  }

  #nextBytes(): Uint8Array | undefined {
    return this.#input.take(this.#state.needBytes);
  }

  /** A number may come again once it has been around; not while its reply is awaited. */
  #nextNumber(): number {
    do {
      this.#lastNumber = this.#lastNumber === NUMBER_MAX ? 1 : this.#lastNumber + 1;
    } while (this.#pending.has(this.#lastNumber));
    return this.#lastNumber;
  }

  #replyMagic(bytes: Uint8Array): State {
    const magic = viewOf(bytes).getUint32(0);
    const { replyStyle } = this.#terms;
    switch (magic) {
      case NBD_SIMPLE_REPLY_MAGIC:
        return { needBytes: NBD_SIMPLE_REPLY_BYTES - MAGIC_BYTES, act: (header) => this.#simpleReply(header) };
      case NBD_STRUCTURED_REPLY_MAGIC:
        must(replyStyle === 'structured', 'a structured reply only where it was negotiated');
        return { needBytes: NBD_STRUCTURED_REPLY_BYTES - MAGIC_BYTES, act: (header) => this.#chunk(header) };
      case NBD_EXTENDED_REPLY_MAGIC:
        must(replyStyle === 'extended', 'an extended reply only where it was negotiated');
        return { needBytes: NBD_EXTENDED_REPLY_BYTES - MAGIC_BYTES, act: (header) => this.#chunk(header) };
      default:
        throw new ProtocolError('violation', 'the server sent something else where a reply should begin');
    }
  }

  #simpleReply(bytes: Uint8Array): State {
    const header = viewOf(bytes);
    const pending = this.#pendingOf(header);
    const dataBytes = pending.reply.simple(header.getUint32(0));
    if (dataBytes === 0) return this.#settle(pending);
    return {
      needBytes: dataBytes,
      act: (data) => {
        pending.reply.simpleData(data);
        return this.#settle(pending);
      },
    };
  }

  #chunk(bytes: Uint8Array): State {
    const header = viewOf(bytes);
    const pending = this.#pendingOf(header);
    const isExtended = this.#terms.replyStyle === 'extended';
    const [offsetHigh, offsetLow] = pending.offset;
    const isOffset = !isExtended || (header.getUint32(12) === offsetHigh && header.getUint32(16) === offsetLow);
    must(isOffset, 'the offset of the request in its reply');
    const payloadBytes = isExtended ? Number(header.getBigUint64(20)) : header.getUint32(12);
    const [flags, type] = [header.getUint16(0), header.getUint16(2)];
    pending.reply.chunkHeader(type, payloadBytes);
    return {
      needBytes: payloadBytes,
      act: (payload) => (pending.reply.chunk(flags, type, payload) ? this.#settle(pending) : this.#magic),
    };
  }

  /** Both headers have the cookie behind four bytes of their own. */
  #pendingOf(header: DataView): Pending {
    must(header.getUint32(4) === COOKIE_HIGH, 'the cookie of a request in its reply');
    const pending = this.#pending.get(header.getUint32(8));
    if (pending === undefined) throw broken('no reply to a request that awaits none');
    return pending;
  }

  #settle({ number, reply }: Pending): State {
    this.#pending.delete(number);
    this.#replies.push({ number, reply: reply.finish() });
    return this.#magic;
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
