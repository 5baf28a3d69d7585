import { ReadCursor, WriteCursor } from '../base/cursor.js';
import type { ClientGoal, ClientOutcome, ClientStateName, ClientStep } from './client-goal.js';
import {
  type ClientQuestion,
  contextsQuestion,
  exportQuestion,
  listQuestion,
  repliesQuestion,
} from './client-questions.js';
import { ContextReplies, checkReplyHeader, exportFacts, InfoReplies, ListReplies } from './client-replies.js';
import {
  NBD_EXPORT_NAME_REPLY_BYTES,
  NBD_EXPORT_NAME_ZEROES_BYTES,
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_INIT_MAGIC,
  NBD_OLDSTYLE_MAGIC,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPTION_MAGIC,
  NBD_OPTION_REPLY_HEADER_BYTES,
  NBD_REP_ACK,
  NBD_REP_ERR_UNSUP,
  NBD_REP_FLAG_ERROR,
} from './constants.js';
import { ProtocolError } from './errors.js';
import { checkNotEmpty, type ExportInfo } from './export-info.js';
import type { OnHandshakeMessage } from './handshake-message.js';
import type { MetaContext } from './meta-context.js';
import { encodeExportName, encodeOption } from './option.js';
import { exportInWords, optionError } from './option-error.js';
import { decodeOptionReplyHeader, type OptionReplyHeader } from './option-reply.js';
import { PeerInput } from './peer-input.js';
import type { ReplyStyle } from './reply.js';

interface State {
  readonly name: ClientStateName;
  /** The state acts once so many bytes are there. */
  readonly needBytes: number;
  readonly act: (bytes: Uint8Array) => State;
}

/** A question under way: what becomes of its replies. */
interface Question extends ClientQuestion {
  /** Absent: it has none before the last. */
  readonly replies?: { add(data: Uint8Array): void };
  /** At NBD_REP_ACK. */
  readonly accepted: () => State;
  /** At an error reply of that type; where this answers no state the negotiation has failed. */
  readonly refused?: (type: number) => State | undefined;
}

export interface ClientHandshakeOptions {
  /** Told each state that is entered after the first. */
  readonly onState?: (state: ClientStateName) => void;
  /** Told each message as it is sent or heard. */
  readonly onMessage?: OnHandshakeMessage;
}

/**
 * The client's side of the handshake (proto.md, 'Handshake'), without I/O: takes the server's bytes in any pieces, gives
 * the bytes to answer with. Throws only for a name that cannot be sent; everything a server does becomes an outcome.
 */
export class ClientHandshake {
  readonly #goal: ClientGoal;
  readonly #onState: (state: ClientStateName) => void;
  readonly #onMessage: OnHandshakeMessage;
  readonly #input = new PeerInput();
  #output = new WriteCursor();
  #state: State = { name: 'INIT_MAGIC', needBytes: 8, act: (bytes) => this.#initMagic(bytes) };
  #outcome: ClientOutcome | undefined;
  #noZeroes = false;
  #fixedNewstyle = false;
  #replyStyle: ReplyStyle = 'simple';
  #contexts: readonly MetaContext[] = [];

  constructor(goal: ClientGoal, { onState = () => {}, onMessage = () => {} }: ClientHandshakeOptions = {}) {
    if (goal.kind !== 'list') encodeExportName(goal.exportName);
    this.#goal = goal;
    this.#onState = onState;
    this.#onMessage = onMessage;
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
    this.#onMessage({ kind: 'greeting', flags });
    const fixedNewstyle = (flags & NBD_FLAG_FIXED_NEWSTYLE) !== 0;
    this.#fixedNewstyle = fixedNewstyle;
    this.#noZeroes = (flags & NBD_FLAG_NO_ZEROES) !== 0;
    const goal = this.#goal;
    if (!fixedNewstyle && goal.kind !== 'go') {
      const wish = goal.kind === 'list' ? 'list its exports' : 'describe an export';
      throw new ProtocolError('unsupported', `the server cannot ${wish}: it does not speak fixed newstyle`);
    }
    const clientFlags = (fixedNewstyle ? NBD_FLAG_C_FIXED_NEWSTYLE : 0) | (this.#noZeroes ? NBD_FLAG_C_NO_ZEROES : 0);
    this.#output.u32be(clientFlags);
    this.#onMessage({ kind: 'client-flags', flags: clientFlags });
    if (goal.kind === 'list') return this.#askList();
    if (!fixedNewstyle || (goal.kind === 'go' && goal.byExportName)) return this.#askExportName(goal.exportName);
    return this.#askReplies(goal.replyStyle ?? 'simple');
  }

  /** A server that refuses the richest style may grant the next. */
  #askReplies(style: ReplyStyle): State {
    if (style === 'simple') return this.#askContexts();
    const accepted = () => {
      this.#replyStyle = style;
      return this.#askContexts();
    };
    const refused = () => this.#askReplies(style === 'extended' ? 'structured' : 'simple');
    return this.#ask({ ...repliesQuestion(style), accepted, refused });
  }

  /** A server that refuses here and lets nobody go on without says so again to GO or INFO. */
  #askContexts(): State {
    const goal = this.#goal;
    const [kind, queries] = goal.kind === 'go' ? (['set', goal.contexts ?? []] as const) : (['list', []] as const);
    const wanted = goal.kind === 'go' ? queries.length > 0 : goal.kind === 'info' && goal.listsContexts === true;
    if (goal.kind === 'list' || !wanted || this.#replyStyle === 'simple') return this.#askExport();
    const replies = new ContextReplies();
    const accepted = () => {
      this.#contexts = kind === 'set' ? replies.selected(queries) : replies.listed();
      return this.#askExport();
    };
    const refused = () => this.#askExport();
    return this.#ask({ ...contextsQuestion(kind, goal.exportName, queries), replies, accepted, refused });
  }

  #askExport(): State {
    const goal = this.#goal;
    if (goal.kind === 'list') return this.#askList();
    const { kind, exportName } = goal;
    const replies = new InfoReplies();
    const accepted = () => (kind === 'go' ? this.#transmit(replies.finish()) : this.#inform(replies.finish()));
    const refused = (type: number) =>
      kind === 'go' && type === NBD_REP_ERR_UNSUP ? this.#askExportName(exportName) : undefined;
    return this.#ask({ ...exportQuestion(kind, exportName), replies, accepted, refused });
  }

  #askList(): State {
    const replies = new ListReplies();
    const accepted = () => this.#leave({ kind: 'list', exports: replies.finish() });
    return this.#ask({ ...listQuestion(), replies, accepted });
  }

  #ask(question: Question): State {
    this.#send(question.option, question.data);
    return this.#replyHeader(question);
  }

  #replyHeader(question: Question): State {
    const act = (bytes: Uint8Array): State => {
      const header = decodeOptionReplyHeader(bytes);
      this.#onMessage({ kind: 'reply', ...header });
      checkReplyHeader(header, question);
      return this.#replyData(question, header);
    };
    return { name: `${question.name}.REPLY_HEADER`, needBytes: NBD_OPTION_REPLY_HEADER_BYTES, act };
  }

  #replyData(question: Question, header: OptionReplyHeader): State {
    const act = (data: Uint8Array): State => {
      if (header.type === NBD_REP_ACK) return question.accepted();
      if (header.type < NBD_REP_FLAG_ERROR) {
        question.replies?.add(data);
        return this.#replyHeader(question);
      }
      const error = optionError(header.type, data, question.exportName);
      return question.refused?.(header.type) ?? this.#leave({ kind: 'failed', error });
    };
    return { name: `${question.name}.REPLY_DATA`, needBytes: header.dataBytes, act };
  }

  #askExportName(exportName: string): State {
    this.#send(NBD_OPT_EXPORT_NAME, encodeExportName(exportName));
    const act = (bytes: Uint8Array): State => {
      this.#onMessage({ kind: 'export-name-reply', dataBytes: bytes.length });
      const cursor = new ReadCursor(bytes);
      return this.#exportNameZeroes(checkNotEmpty(exportFacts(cursor.u64be(), cursor.u16be())));
    };
    return { name: 'OPT_EXPORT_NAME.REPLY', needBytes: NBD_EXPORT_NAME_REPLY_BYTES, act };
  }

  #exportNameZeroes(facts: ExportInfo): State {
    const needBytes = this.#noZeroes ? 0 : NBD_EXPORT_NAME_ZEROES_BYTES;
    const act = (): State => this.#transmit(facts);
    return { name: 'OPT_EXPORT_NAME.ZEROES', needBytes, act };
  }

  #transmit(found: ExportInfo): State {
    return this.#finish({
      kind: 'transmission',
      export: checkNotEmpty(found),
      fixedNewstyle: this.#fixedNewstyle,
      replyStyle: this.#replyStyle,
      contexts: this.#contexts,
    });
  }

  #inform(found: ExportInfo): State {
    const contexts = this.#contexts.map(({ name }) => name);
    return this.#leave({ kind: 'info', export: found, replyStyle: this.#replyStyle, contexts });
  }

  /** A soft disconnect, the only way out that the specification leaves a client whose question was answered. */
  #leave(outcome: ClientOutcome): State {
    this.#send(NBD_OPT_ABORT, NO_DATA);
    return this.#finish(outcome);
  }

  #send(option: number, data: Uint8Array): void {
    this.#output.bytes(encodeOption(option, data));
    this.#onMessage({ kind: 'option', option, dataBytes: data.length });
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

const NO_DATA = new Uint8Array(0);

const ENDED: State = { name: 'ENDED', needBytes: 0, act: () => ENDED };
