import { ReadCursor, WriteCursor } from '../base/cursor.js';
import {
  NBD_CLIENT_FLAGS_BYTES,
  NBD_EXPORT_NAME_REPLY_BYTES,
  NBD_EXPORT_NAME_ZEROES_BYTES,
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_GREETING_BYTES,
  NBD_INIT_MAGIC,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_OPTION_HEADER_BYTES,
  NBD_OPTION_MAGIC,
  NBD_OPTION_REPLY_HEADER_BYTES,
  NBD_REP_ACK,
  NBD_REP_ERR_SHUTDOWN,
  NBD_REP_ERR_TOO_BIG,
} from './constants.js';
import { ProtocolError } from './errors.js';
import type { OnHandshakeMessage } from './handshake-message.js';
import { OPTION_DATA_BYTES_MAX, OPTIONS_MAX } from './limits.js';
import type { MetaContext } from './meta-context.js';
import { decodeExportName, decodeOptionHeader, type OptionHeader } from './option.js';
import { exportInWords } from './option-error.js';
import { decodeOptionReplyHeader, encodeOptionReply } from './option-reply.js';
import { PeerInput } from './peer-input.js';
import type { ReplyStyle } from './reply.js';
import { announcedFlags } from './request-rules.js';
import {
  answerExportQuestion,
  answerOption,
  type ExportDirectory,
  type Negotiated,
  refusal,
  unsupported,
} from './server-answers.js';
import { OPTION_STATES, type ServerStateName } from './server-states.js';

export type { ExportDirectory } from './server-answers.js';

export type ServerOutcome =
  | {
      readonly kind: 'transmission';
      readonly exportName: string;
      /** The transmission flags that the client was told. */
      readonly flags: number;
      readonly replyStyle: ReplyStyle;
      /** The metadata contexts that the client selected for this export. */
      readonly contexts: readonly MetaContext[];
      /** Bytes behind the handshake that came with it: the first requests. */
      readonly received: Uint8Array;
    }
  /** The connection is to be closed once everything is sent; the code is 'aborted' for a client that took its leave. */
  | { readonly kind: 'closed'; readonly reason: ProtocolError };

export interface ServerHandshakeOptions {
  /** True once the server is about to end: then every option but ABORT is refused. */
  readonly isClosing?: () => boolean;
  /** The richest way of replying that a client may negotiate; absent: 'extended'. */
  readonly replyStyleMax?: ReplyStyle;
  /** Told each state that is entered after the first. */
  readonly onState?: (state: ServerStateName) => void;
  /** Told each message as it is sent or heard. */
  readonly onMessage?: OnHandshakeMessage;
}

/** Bytes to send now (maybe none), and the outcome once there is one; both count when both are there. */
export interface ServerStep {
  readonly send: Uint8Array;
  readonly outcome?: ServerOutcome;
}

interface State {
  readonly name: ServerStateName;
  /** The state acts once so many bytes are there. */
  readonly needBytes: number;
  readonly act: (bytes: Uint8Array) => State;
}

/**
 * The server's side of the handshake (proto.md, 'Handshake'), without I/O: takes the client's bytes in any pieces, gives
 * the bytes to answer with. Speaks fixed newstyle without TLS. Everything a client does becomes an answer or an outcome.
 */
export class ServerHandshake {
  readonly #exports: ExportDirectory;
  readonly #isClosing: () => boolean;
  readonly #replyStyleMax: ReplyStyle;
  readonly #onState: (state: ServerStateName) => void;
  readonly #onMessage: OnHandshakeMessage | undefined;
  readonly #input = new PeerInput();
  #output = new WriteCursor();
  #state: State = { name: 'CLIENT_FLAGS', needBytes: NBD_CLIENT_FLAGS_BYTES, act: (bytes) => this.#clientFlags(bytes) };
  #outcome: ServerOutcome | undefined;
  #noZeroes = false;
  #options = 0;
  #negotiated: Negotiated = { replyStyle: 'simple', selection: undefined };

  constructor(exports: ExportDirectory, options: ServerHandshakeOptions = {}) {
    this.#exports = exports;
    this.#isClosing = options.isClosing ?? (() => false);
    this.#replyStyleMax = options.replyStyleMax ?? 'extended';
    this.#onState = options.onState ?? (() => {});
    this.#onMessage = options.onMessage;
  }

  get stateName(): ServerStateName {
    return this.#state.name;
  }

  get bufferedBytes(): number {
    return this.#input.bufferedBytes;
  }

  /** The greeting: the server speaks first. */
  start(): Uint8Array {
    const flags = NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES;
    this.#onMessage?.({ kind: 'greeting', flags });
    return new WriteCursor(NBD_GREETING_BYTES).u64be(NBD_INIT_MAGIC).u64be(NBD_OPTION_MAGIC).u16be(flags).finish();
  }

  /** Takes the next bytes of the client. Not to be called again after an outcome: later bytes are requests. */
  receive(piece: Uint8Array): ServerStep {
    this.#input.give(piece);
    try {
      for (let bytes = this.#nextBytes(); bytes !== undefined; bytes = this.#nextBytes()) {
        this.#state = this.#state.act(bytes);
        this.#onState(this.#state.name);
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#outcome = { kind: 'closed', reason: error };
    }
    const send = this.#output.finish();
    this.#output = new WriteCursor();
    return this.#outcome === undefined ? { send } : { send, outcome: this.#outcome };
  }

  /** The client has closed the connection: the outcome, at the latest now. */
  end(): ServerOutcome {
    const closed = `the client closed the connection in the negotiation (${this.#state.name})`;
    this.#outcome ??= { kind: 'closed', reason: new ProtocolError('closed', closed) };
    return this.#outcome;
  }

  #nextBytes(): Uint8Array | undefined {
    return this.#outcome === undefined ? this.#input.take(this.#state.needBytes) : undefined;
  }

  #clientFlags(bytes: Uint8Array): State {
    const flags = new ReadCursor(bytes).u32be();
    this.#onMessage?.({ kind: 'client-flags', flags });
    if ((flags & ~(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES)) !== 0) {
      throw new ProtocolError('violation', `the client sent unknown flags (0x${flags.toString(16)})`);
    }
    this.#noZeroes = (flags & NBD_FLAG_C_NO_ZEROES) !== 0;
    return this.#optionHeader();
  }

  #optionHeader(): State {
    const act = (bytes: Uint8Array): State => {
      const header = decodeOptionHeader(bytes);
      this.#onMessage?.({ kind: 'option', ...header });
      this.#options += 1;
      if (this.#options > OPTIONS_MAX) {
        throw new ProtocolError('too-big', `the client sent more than ${OPTIONS_MAX} options`);
      }
      if (header.dataBytes > OPTION_DATA_BYTES_MAX) throw this.#tooBig(header);
      return this.#optionData(header.option, header.dataBytes);
    };
    return { name: 'OPTION_HEADER', needBytes: NBD_OPTION_HEADER_BYTES, act };
  }

  /** Reading so much only to throw it away would be a service to an attacker: the client is told, and left. */
  #tooBig(header: OptionHeader): ProtocolError {
    const text = `${header.dataBytes} bytes of data with an option; at most ${OPTION_DATA_BYTES_MAX} are taken`;
    if (header.option !== NBD_OPT_EXPORT_NAME) this.#refuse(header.option, NBD_REP_ERR_TOO_BIG, text);
    return new ProtocolError('too-big', `the client announced ${text}`);
  }

  /** The state that takes the option's data, all of it even where the option is refused. */
  #optionData(option: number, needBytes: number): State {
    return { name: OPTION_STATES[option] ?? 'OPT_UNKNOWN', needBytes, act: (data) => this.#option(option, data) };
  }

  #option(option: number, data: Uint8Array): State {
    if (option === NBD_OPT_ABORT) return this.#abort();
    if (this.#isClosing()) return this.#shuttingDown(option);
    if (option === NBD_OPT_EXPORT_NAME) return this.#exportName(data);
    if (option === NBD_OPT_GO) return this.#go(data);
    return this.#anyOther(option, data);
  }

  #abort(): State {
    this.#reply(encodeOptionReply(NBD_OPT_ABORT, NBD_REP_ACK, new Uint8Array(0)));
    this.#outcome = { kind: 'closed', reason: new ProtocolError('aborted', 'the client took its leave') };
    return ENDED;
  }

  #shuttingDown(option: number): State {
    if (option === NBD_OPT_EXPORT_NAME) throw new ProtocolError('shutdown', ABOUT_TO_END);
    if (option === NBD_OPT_SET_META_CONTEXT) this.#negotiated = { ...this.#negotiated, selection: undefined };
    this.#refuse(option, NBD_REP_ERR_SHUTDOWN, ABOUT_TO_END);
    return this.#optionHeader();
  }

  /** This option has no error reply: a client that asks for what is not there is left alone. */
  #exportName(data: Uint8Array): State {
    const { replyStyle } = this.#negotiated;
    if (replyStyle === 'extended') {
      throw new ProtocolError('violation', 'the client negotiated extended headers and then used NBD_OPT_EXPORT_NAME');
    }
    const exportName = decodeExportName(data);
    const refusal = this.#exports.refusal?.();
    if (refusal !== undefined) throw new ProtocolError('policy', refusal);
    const found = this.#exports.find(exportName);
    if (found === undefined) {
      throw new ProtocolError('unknown-export', `the client asked for ${exportInWords(exportName)}, which is not here`);
    }
    const flags = announcedFlags(found.flags, replyStyle);
    const zeroes = new Uint8Array(this.#noZeroes ? 0 : NBD_EXPORT_NAME_ZEROES_BYTES);
    this.#output.u64be(BigInt(found.sizeBytes)).u16be(flags).bytes(zeroes);
    this.#onMessage?.({ kind: 'export-name-reply', dataBytes: NBD_EXPORT_NAME_REPLY_BYTES + zeroes.length });
    return this.#transmission(exportName, flags);
  }

  #go(data: Uint8Array): State {
    const { replyStyle } = this.#negotiated;
    const { replies, accepted } = answerExportQuestion(NBD_OPT_GO, data, this.#exports, replyStyle);
    this.#reply(replies);
    return accepted === undefined ? this.#optionHeader() : this.#transmission(accepted.exportName, accepted.flags);
  }

  #anyOther(option: number, data: Uint8Array): State {
    const { replies, negotiated } = this.#hides(option)
      ? { ...unsupported(option), negotiated: this.#negotiated }
      : answerOption(option, data, this.#exports, this.#negotiated);
    this.#reply(replies);
    this.#negotiated = negotiated;
    return this.#optionHeader();
  }

  /** Whether the option leads further than this server goes, so that a client may take it for unknown. */
  #hides(option: number): boolean {
    if (this.#replyStyleMax === 'extended') return false;
    return option === NBD_OPT_EXTENDED_HEADERS || (this.#replyStyleMax === 'simple' && CHUNK_OPTIONS.includes(option));
  }

  #refuse(option: number, type: number, text: string): void {
    this.#reply(refusal(option, type, text).replies);
  }

  /** One reply behind the other, as they are sent. */
  #reply(replies: Uint8Array): void {
    this.#output.bytes(replies);
    for (let at = 0; this.#onMessage !== undefined && at < replies.length; ) {
      const header = decodeOptionReplyHeader(replies.subarray(at, at + NBD_OPTION_REPLY_HEADER_BYTES));
      this.#onMessage({ kind: 'reply', ...header });
      at += NBD_OPTION_REPLY_HEADER_BYTES + header.dataBytes;
    }
  }

  #transmission(exportName: string, flags: number): State {
    const { replyStyle, selection } = this.#negotiated;
    const contexts = selection?.exportName === exportName ? selection.contexts : [];
    this.#outcome = { kind: 'transmission', exportName, flags, replyStyle, contexts, received: this.#input.rest() };
    return ENDED;
  }
}

/** What a client asks for to be answered in chunks, and what can only be answered so. */
const CHUNK_OPTIONS: readonly number[] = [
  NBD_OPT_STRUCTURED_REPLY,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
];

const ABOUT_TO_END = 'the server is about to end';

const ENDED: State = { name: 'ENDED', needBytes: 0, act: () => ENDED };
