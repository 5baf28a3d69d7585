import { ReadCursor, WriteCursor } from '../base/cursor.js';
import { checkReplyHeader, exportFacts, InfoReplies, ListReplies } from './client-replies.js';
import {
  NBD_EXPORT_NAME_REPLY_BYTES,
  NBD_EXPORT_NAME_ZEROES_BYTES,
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_NAME,
  NBD_INIT_MAGIC,
  NBD_OLDSTYLE_MAGIC,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPTION_MAGIC,
  NBD_OPTION_REPLY_HEADER_BYTES,
  NBD_REP_ACK,
  NBD_REP_ERR_UNSUP,
  NBD_REP_FLAG_ERROR,
  NBD_REP_INFO,
  NBD_REP_SERVER,
} from './constants.js';
import { ProtocolError } from './errors.js';
import { checkNotEmpty, type ExportInfo } from './export-info.js';
import { HandshakeInput } from './handshake-input.js';
import { encodeExportName, encodeExportQuestion, encodeOption } from './option.js';
import { exportInWords, optionError } from './option-error.js';
import { decodeOptionReplyHeader, type ListedExport, type OptionReplyHeader } from './option-reply.js';

/** What a negotiation is for; 'info' and 'list' take their leave when they know it. '' is the default export. */
export type ClientGoal =
  | { readonly kind: 'go'; readonly exportName: string }
  | { readonly kind: 'info'; readonly exportName: string }
  | { readonly kind: 'list' };

export type ClientOutcome =
  | { readonly kind: 'transmission'; readonly export: ExportInfo }
  | { readonly kind: 'info'; readonly export: ExportInfo }
  | { readonly kind: 'list'; readonly exports: readonly ListedExport[] }
  | { readonly kind: 'failed'; readonly error: ProtocolError };

/** Bytes to send now (maybe none), and the outcome once there is one; both count when both are there. */
export interface ClientStep {
  readonly send: Uint8Array;
  readonly outcome?: ClientOutcome;
}

/** The states in the order of the specification; `ENDED` has no way out. */
export type ClientStateName =
  | 'INIT_MAGIC'
  | 'SERVER_MAGIC'
  | 'HANDSHAKE_FLAGS'
  | 'OPT_GO.REPLY_HEADER'
  | 'OPT_GO.REPLY_DATA'
  | 'OPT_INFO.REPLY_HEADER'
  | 'OPT_INFO.REPLY_DATA'
  | 'OPT_LIST.REPLY_HEADER'
  | 'OPT_LIST.REPLY_DATA'
  | 'OPT_EXPORT_NAME.REPLY'
  | 'OPT_EXPORT_NAME.ZEROES'
  | 'ENDED';

interface State {
  readonly name: ClientStateName;
  /** The state acts once so many bytes are there. */
  readonly needBytes: number;
  readonly act: (bytes: Uint8Array) => State;
}

/** An option under way whose replies have the common form. */
interface Question {
  readonly name: 'OPT_GO' | 'OPT_INFO' | 'OPT_LIST';
  readonly option: number;
  /** The type of the replies that come before the last. */
  readonly replyType: number;
  /** Absent: the question is not for one export. */
  readonly exportName?: string;
  readonly replies: { add(data: Uint8Array): void };
  /** At NBD_REP_ACK. */
  readonly accepted: () => State;
}

/**
 * The client's side of the handshake (proto.md, 'Handshake'), without I/O: takes the server's bytes in any pieces, gives
 * the bytes to answer with. Throws only for a name that cannot be sent; everything a server does becomes an outcome.
 */
export class ClientHandshake {
  readonly #goal: ClientGoal;
  readonly #onState: (state: ClientStateName) => void;
  readonly #input = new HandshakeInput();
  #output = new WriteCursor();
  #state: State = { name: 'INIT_MAGIC', needBytes: 8, act: (bytes) => this.#initMagic(bytes) };
  #outcome: ClientOutcome | undefined;
  #noZeroes = false;

  /** `onState` is told each state that is entered after the first. */
  constructor(goal: ClientGoal, onState: (state: ClientStateName) => void = () => {}) {
    if (goal.kind !== 'list') encodeExportName(goal.exportName);
    this.#goal = goal;
    this.#onState = onState;
  }

  get stateName(): ClientStateName {
    return this.#state.name;
  }

  get bufferedBytes(): number {
    return this.#input.bufferedBytes;
  }

  /** Takes the next bytes of the server. After an outcome there are none to expect: behind the last reply they are an error. */
  receive(piece: Uint8Array): ClientStep {
    this.#input.give(piece);
    try {
      for (let bytes = this.#nextBytes(); bytes !== undefined; bytes = this.#nextBytes()) {
        this.#state = this.#state.act(bytes);
        this.#onState(this.#state.name);
      }
      if (this.#outcome?.kind === 'transmission' && this.#input.rest().length > 0) {
        throw new ProtocolError('violation', 'the server went on sending behind the end of the negotiation');
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#finish({ kind: 'failed', error });
    }
    const send = this.#output.finish();
    this.#output = new WriteCursor();
    return this.#outcome === undefined ? { send } : { send, outcome: this.#outcome };
  }

  /** The server has closed the connection: the outcome, at the latest now. */
  end(): ClientOutcome {
    const outcome = this.#outcome ?? { kind: 'failed', error: this.#closedEarly() };
    this.#finish(outcome);
    return outcome;
  }

  #nextBytes(): Uint8Array | undefined {
    return this.#outcome === undefined ? this.#input.take(this.#state.needBytes) : undefined;
  }

  #initMagic(bytes: Uint8Array): State {
    if (new ReadCursor(bytes).u64be() !== NBD_INIT_MAGIC) {
      throw new ProtocolError('not-nbd', 'what answers there is not an NBD server (it does not begin with NBDMAGIC)');
    }
    return { name: 'SERVER_MAGIC', needBytes: 8, act: (magic) => this.#serverMagic(magic) };
  }

  #serverMagic(bytes: Uint8Array): State {
    const magic = new ReadCursor(bytes).u64be();
    if (magic === NBD_OLDSTYLE_MAGIC) {
      throw new ProtocolError('oldstyle', 'the server only speaks the oldstyle protocol, out of use since nbd 3.10');
    }
    if (magic !== NBD_OPTION_MAGIC) {
      throw new ProtocolError('not-nbd', 'what answers there begins like an NBD server and goes on otherwise');
    }
    return { name: 'HANDSHAKE_FLAGS', needBytes: 2, act: (flags) => this.#handshakeFlags(flags) };
  }

  #handshakeFlags(bytes: Uint8Array): State {
    const flags = new ReadCursor(bytes).u16be();
    const fixedNewstyle = (flags & NBD_FLAG_FIXED_NEWSTYLE) !== 0;
    this.#noZeroes = (flags & NBD_FLAG_NO_ZEROES) !== 0;
    const goal = this.#goal;
    if (!fixedNewstyle && goal.kind !== 'go') {
      const wish = goal.kind === 'list' ? 'list its exports' : 'describe an export';
      throw new ProtocolError('unsupported', `the server cannot ${wish}: it does not speak fixed newstyle`);
    }
    const clientFlags = (fixedNewstyle ? NBD_FLAG_C_FIXED_NEWSTYLE : 0) | (this.#noZeroes ? NBD_FLAG_C_NO_ZEROES : 0);
    this.#output.u32be(clientFlags);
    switch (goal.kind) {
      case 'go':
        return fixedNewstyle ? this.#askGo(goal.exportName) : this.#askExportName(goal.exportName);
      case 'info':
        return this.#askInfo(goal.exportName);
      case 'list':
        return this.#askList();
    }
  }

  #askGo(exportName: string): State {
    this.#output.bytes(encodeOption(NBD_OPT_GO, encodeExportQuestion({ exportName, infoTypes: INFO_TYPES })));
    const replies = new InfoReplies();
    const accepted = () => this.#finish({ kind: 'transmission', export: checkNotEmpty(replies.finish()) });
    return this.#replyHeader({
      name: 'OPT_GO',
      option: NBD_OPT_GO,
      replyType: NBD_REP_INFO,
      exportName,
      replies,
      accepted,
    });
  }

  #askInfo(exportName: string): State {
    this.#output.bytes(encodeOption(NBD_OPT_INFO, encodeExportQuestion({ exportName, infoTypes: INFO_TYPES })));
    const replies = new InfoReplies();
    const accepted = () => this.#leave({ kind: 'info', export: replies.finish() });
    return this.#replyHeader({
      name: 'OPT_INFO',
      option: NBD_OPT_INFO,
      replyType: NBD_REP_INFO,
      exportName,
      replies,
      accepted,
    });
  }

  #askList(): State {
    this.#output.bytes(encodeOption(NBD_OPT_LIST, NO_DATA));
    const replies = new ListReplies();
    const accepted = () => this.#leave({ kind: 'list', exports: replies.finish() });
    return this.#replyHeader({ name: 'OPT_LIST', option: NBD_OPT_LIST, replyType: NBD_REP_SERVER, replies, accepted });
  }

  #replyHeader(question: Question): State {
    const act = (bytes: Uint8Array): State => {
      const header = decodeOptionReplyHeader(bytes);
      checkReplyHeader(header, question);
      return this.#replyData(question, header);
    };
    return { name: `${question.name}.REPLY_HEADER`, needBytes: NBD_OPTION_REPLY_HEADER_BYTES, act };
  }

  #replyData(question: Question, header: OptionReplyHeader): State {
    const act = (data: Uint8Array): State => {
      if (header.type === NBD_REP_ACK) return question.accepted();
      if (header.type < NBD_REP_FLAG_ERROR) {
        question.replies.add(data);
        return this.#replyHeader(question);
      }
      if (header.type === NBD_REP_ERR_UNSUP && this.#goal.kind === 'go') {
        return this.#askExportName(this.#goal.exportName);
      }
      return this.#leave({ kind: 'failed', error: optionError(header.type, data, question.exportName) });
    };
    return { name: `${question.name}.REPLY_DATA`, needBytes: header.dataBytes, act };
  }

  #askExportName(exportName: string): State {
    this.#output.bytes(encodeOption(NBD_OPT_EXPORT_NAME, encodeExportName(exportName)));
    const act = (bytes: Uint8Array): State => {
      const cursor = new ReadCursor(bytes);
      const facts = checkNotEmpty(exportFacts(cursor.u64be(), cursor.u16be()));
      return this.#exportNameZeroes(facts);
    };
    return { name: 'OPT_EXPORT_NAME.REPLY', needBytes: NBD_EXPORT_NAME_REPLY_BYTES, act };
  }

  #exportNameZeroes(facts: ExportInfo): State {
    const needBytes = this.#noZeroes ? 0 : NBD_EXPORT_NAME_ZEROES_BYTES;
    const act = (): State => this.#finish({ kind: 'transmission', export: facts });
    return { name: 'OPT_EXPORT_NAME.ZEROES', needBytes, act };
  }

  /** A soft disconnect, the only way out that the specification leaves a client whose question was answered. */
  #leave(outcome: ClientOutcome): State {
    this.#output.bytes(encodeOption(NBD_OPT_ABORT, NO_DATA));
    return this.#finish(outcome);
  }

  #finish(outcome: ClientOutcome): State {
    this.#outcome = outcome;
    return ENDED;
  }

  #closedEarly(): ProtocolError {
    if (this.#state.name === 'INIT_MAGIC' && !this.#input.holdsPart) {
      return new ProtocolError('closed', 'the server closed the connection without a word');
    }
    if (this.#state.name === 'OPT_EXPORT_NAME.REPLY' && this.#goal.kind === 'go' && !this.#input.holdsPart) {
      const wish = exportInWords(this.#goal.exportName);
      return new ProtocolError(
        'unknown-export',
        `the server closed the connection when asked for ${wish}: it has none such`,
      );
    }
    return new ProtocolError('closed', `the server closed the connection in the negotiation (${this.#state.name})`);
  }
}

const INFO_TYPES: readonly number[] = [NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE];

const NO_DATA = new Uint8Array(0);

const ENDED: State = { name: 'ENDED', needBytes: 0, act: () => ENDED };
