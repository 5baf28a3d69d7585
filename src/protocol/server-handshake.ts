import { ReadCursor, WriteCursor } from '../base/cursor.js';
import {
  NBD_CLIENT_FLAGS_BYTES,
  NBD_EXPORT_NAME_ZEROES_BYTES,
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_GREETING_BYTES,
  NBD_INIT_MAGIC,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPTION_HEADER_BYTES,
  NBD_OPTION_MAGIC,
  NBD_REP_ACK,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_TOO_BIG,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
} from './constants.js';
import { ProtocolError } from './errors.js';
import type { ExportInfo } from './export-info.js';
import { HandshakeInput } from './handshake-input.js';
import { OPTION_DATA_BYTES_MAX, OPTIONS_MAX } from './limits.js';
import {
  decodeExportName,
  decodeExportQuestion,
  decodeOptionHeader,
  type ExportQuestion,
  type OptionHeader,
} from './option.js';
import { exportInWords } from './option-error.js';
import { encodeOptionReply } from './option-reply.js';
import { encodeInformationReplies, encodeListReplies } from './server-replies.js';

/** What a server has to offer; `list()` is what NBD_OPT_LIST shows, and each entry there has its `name`. */
export interface ExportDirectory {
  find(exportName: string): ExportInfo | undefined;
  list(): readonly ExportInfo[];
}

export type ServerOutcome =
  /** `received` are bytes behind the handshake that came with it: the first requests. */
  | { readonly kind: 'transmission'; readonly exportName: string; readonly received: Uint8Array }
  /** The connection is to be closed once everything is sent; the code is 'aborted' for a client that took its leave. */
  | { readonly kind: 'closed'; readonly reason: ProtocolError };

/** Bytes to send now (maybe none), and the outcome once there is one; both count when both are there. */
export interface ServerStep {
  readonly send: Uint8Array;
  readonly outcome?: ServerOutcome;
}

/** `OPT_…` takes that option's data; `ENDED` has no way out. */
export type ServerStateName =
  | 'CLIENT_FLAGS'
  | 'OPTION_HEADER'
  | 'OPT_EXPORT_NAME'
  | 'OPT_ABORT'
  | 'OPT_LIST'
  | 'OPT_INFO'
  | 'OPT_GO'
  | 'OPT_UNKNOWN'
  | 'ENDED';

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
  readonly #onState: (state: ServerStateName) => void;
  readonly #input = new HandshakeInput();
  #output = new WriteCursor();
  #state: State = { name: 'CLIENT_FLAGS', needBytes: NBD_CLIENT_FLAGS_BYTES, act: (bytes) => this.#clientFlags(bytes) };
  #outcome: ServerOutcome | undefined;
  #noZeroes = false;
  #options = 0;

  /** `onState` is told each state that is entered after the first. */
  constructor(exports: ExportDirectory, onState: (state: ServerStateName) => void = () => {}) {
    this.#exports = exports;
    this.#onState = onState;
  }

  get stateName(): ServerStateName {
    return this.#state.name;
  }

  get bufferedBytes(): number {
    return this.#input.bufferedBytes;
  }

  /** The greeting: the server speaks first. */
  start(): Uint8Array {
    return new WriteCursor(NBD_GREETING_BYTES)
      .u64be(NBD_INIT_MAGIC)
      .u64be(NBD_OPTION_MAGIC)
      .u16be(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)
      .finish();
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
    if ((flags & ~(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES)) !== 0) {
      throw new ProtocolError('violation', `the client sent unknown flags (0x${flags.toString(16)})`);
    }
    this.#noZeroes = (flags & NBD_FLAG_C_NO_ZEROES) !== 0;
    return this.#optionHeader();
  }

  #optionHeader(): State {
    const act = (bytes: Uint8Array): State => {
      const header = decodeOptionHeader(bytes);
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
    if (header.option !== NBD_OPT_EXPORT_NAME) this.#reply(header.option, NBD_REP_ERR_TOO_BIG, text);
    return new ProtocolError('too-big', `the client announced ${text}`);
  }

  #optionData(option: number, needBytes: number): State {
    switch (option) {
      case NBD_OPT_EXPORT_NAME:
        return { name: 'OPT_EXPORT_NAME', needBytes, act: (data) => this.#exportName(data) };
      case NBD_OPT_ABORT:
        return { name: 'OPT_ABORT', needBytes, act: () => this.#abort() };
      case NBD_OPT_LIST:
        return { name: 'OPT_LIST', needBytes, act: (data) => this.#list(data) };
      case NBD_OPT_INFO:
        return { name: 'OPT_INFO', needBytes, act: (data) => this.#info(data) };
      case NBD_OPT_GO:
        return { name: 'OPT_GO', needBytes, act: (data) => this.#go(data) };
      default:
        return { name: 'OPT_UNKNOWN', needBytes, act: () => this.#unknown(option) };
    }
  }

  /** This option has no error reply: a client that asks for what is not there is left alone. */
  #exportName(data: Uint8Array): State {
    const exportName = decodeExportName(data);
    const found = this.#exports.find(exportName);
    if (found === undefined) {
      throw new ProtocolError('unknown-export', `the client asked for ${exportInWords(exportName)}, which is not here`);
    }
    this.#output.u64be(BigInt(found.sizeBytes)).u16be(found.flags);
    if (!this.#noZeroes) this.#output.bytes(new Uint8Array(NBD_EXPORT_NAME_ZEROES_BYTES));
    return this.#transmission(exportName);
  }

  #abort(): State {
    this.#reply(NBD_OPT_ABORT, NBD_REP_ACK, '');
    this.#outcome = { kind: 'closed', reason: new ProtocolError('aborted', 'the client took its leave') };
    return ENDED;
  }

  #list(data: Uint8Array): State {
    if (data.length > 0) return this.#refuse(NBD_OPT_LIST, NBD_REP_ERR_INVALID, 'NBD_OPT_LIST takes no data');
    this.#output.bytes(encodeListReplies(this.#exports.list()));
    this.#reply(NBD_OPT_LIST, NBD_REP_ACK, '');
    return this.#optionHeader();
  }

  #info(data: Uint8Array): State {
    this.#answerQuestion(NBD_OPT_INFO, data);
    return this.#optionHeader();
  }

  #go(data: Uint8Array): State {
    const exportName = this.#answerQuestion(NBD_OPT_GO, data);
    return exportName === undefined ? this.#optionHeader() : this.#transmission(exportName);
  }

  #unknown(option: number): State {
    return this.#refuse(option, NBD_REP_ERR_UNSUP, 'this server does not know the option');
  }

  /** Replies to a GO or INFO; answers the name of the export if it was accepted. */
  #answerQuestion(option: number, data: Uint8Array): string | undefined {
    const question = this.#readQuestion(option, data);
    if (question === undefined) return undefined;
    const found = this.#exports.find(question.exportName);
    if (found === undefined) {
      this.#reply(option, NBD_REP_ERR_UNKNOWN, 'there is no such export');
      return undefined;
    }
    this.#output.bytes(encodeInformationReplies(option, question, found));
    this.#reply(option, NBD_REP_ACK, '');
    return question.exportName;
  }

  #readQuestion(option: number, data: Uint8Array): ExportQuestion | undefined {
    try {
      return decodeExportQuestion(data);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#reply(option, error.code === 'too-big' ? NBD_REP_ERR_TOO_BIG : NBD_REP_ERR_INVALID, error.message);
      return undefined;
    }
  }

  #refuse(option: number, type: number, text: string): State {
    this.#reply(option, type, text);
    return this.#optionHeader();
  }

  #reply(option: number, type: number, text: string): void {
    this.#output.bytes(encodeOptionReply(option, type, new TextEncoder().encode(text)));
  }

  #transmission(exportName: string): State {
    this.#outcome = { kind: 'transmission', exportName, received: this.#input.rest() };
    return ENDED;
  }
}

const ENDED: State = { name: 'ENDED', needBytes: 0, act: () => ENDED };
