import { WriteCursor } from '../base/cursor.js';
import {
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_ERR_EXT_HEADER_REQD,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_TOO_BIG,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
} from './constants.js';
import { ProtocolError } from './errors.js';
import type { ExportInfo } from './export-info.js';
import {
  type ContextQuestion,
  decodeContextQuestion,
  listedContexts,
  type MetaContext,
  selectedContexts,
} from './meta-context.js';
import { decodeExportQuestion } from './option.js';
import { encodeOptionReply } from './option-reply.js';
import type { ReplyStyle } from './reply.js';
import { announcedFlags } from './request-rules.js';
import { encodeInformationReplies, encodeListReplies, encodeMetaContextReplies } from './server-replies.js';

/** What a server has to offer; `list()` is what NBD_OPT_LIST shows, and each entry there has its `name`. */
export interface ExportDirectory {
  find(exportName: string): ExportInfo | undefined;
  list(): readonly ExportInfo[];
  /** Why nothing is served to this client now, a text for it; asked again for each export that it asks for. */
  refusal?(): string | undefined;
}

/** What options have settled so far. */
export interface Negotiated {
  readonly replyStyle: ReplyStyle;
  /** The metadata contexts that the client selected last, and the export that they are for; absent: none. */
  readonly selection: ContextSelection | undefined;
}

export interface ContextSelection {
  readonly exportName: string;
  readonly contexts: readonly MetaContext[];
}

/** All replies to one option; `accepted` is there if the last of them is NBD_REP_ACK. */
export interface Answer<T> {
  readonly replies: Uint8Array;
  readonly accepted?: T;
}

/** Any option but those that end the handshake: the replies, and what is settled now. */
export function answerOption(
  option: number,
  data: Uint8Array,
  exports: ExportDirectory,
  before: Negotiated,
): { readonly replies: Uint8Array; readonly negotiated: Negotiated } {
  switch (option) {
    case NBD_OPT_LIST:
      return { replies: answerList(data, exports).replies, negotiated: before };
    case NBD_OPT_STARTTLS:
      return { replies: answerStartTls(data).replies, negotiated: before };
    case NBD_OPT_INFO:
      return { replies: answerExportQuestion(option, data, exports, before.replyStyle).replies, negotiated: before };
    case NBD_OPT_STRUCTURED_REPLY:
    case NBD_OPT_EXTENDED_HEADERS: {
      const { replies, accepted: replyStyle = before.replyStyle } = answerReplyStyle(option, data, before.replyStyle);
      return { replies, negotiated: { ...before, replyStyle } };
    }
    case NBD_OPT_LIST_META_CONTEXT:
      return { replies: answerListMetaContext(data, exports, before.replyStyle).replies, negotiated: before };
    case NBD_OPT_SET_META_CONTEXT: {
      // What was selected before is gone, also when this fails.
      const { replies, accepted: selection } = answerSetMetaContext(data, exports, before.replyStyle);
      return { replies, negotiated: { ...before, selection } };
    }
    default:
      return { replies: unsupported(option).replies, negotiated: before };
  }
}

/** NBD_OPT_GO and NBD_OPT_INFO (`option`): the export, with the transmission flags that the client was told. */
export function answerExportQuestion(
  option: number,
  data: Uint8Array,
  exports: ExportDirectory,
  replyStyle: ReplyStyle,
): Answer<{ readonly exportName: string; readonly flags: number }> {
  const { replies, accepted } = reading(option, () => decodeExportQuestion(data));
  if (accepted === undefined) return { replies };
  const policy = exports.refusal?.();
  if (policy !== undefined) return refusal(option, NBD_REP_ERR_POLICY, policy);
  const { exportName } = accepted;
  const found = exports.find(exportName);
  if (found === undefined) return refusal(option, NBD_REP_ERR_UNKNOWN, NO_SUCH_EXPORT);
  const flags = announcedFlags(found.flags, replyStyle);
  const told = encodeInformationReplies(option, accepted, { ...found, flags });
  return acceptance(option, told, { exportName, flags });
}

/** An error reply with its text for the user at the other end. */
export function refusal(option: number, type: number, text: string): Answer<never> {
  return { replies: encodeOptionReply(option, type, new TextEncoder().encode(text)) };
}

export function unsupported(option: number): Answer<never> {
  return refusal(option, NBD_REP_ERR_UNSUP, 'this server does not know the option');
}

function answerList(data: Uint8Array, exports: ExportDirectory): Answer<true> {
  if (data.length > 0) return refusal(NBD_OPT_LIST, NBD_REP_ERR_INVALID, NO_DATA_WANTED);
  return acceptance(NBD_OPT_LIST, encodeListReplies(exports.list()), true);
}

/** There is no TLS here. */
function answerStartTls(data: Uint8Array): Answer<never> {
  if (data.length > 0) return refusal(NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID, NO_DATA_WANTED);
  return refusal(NBD_OPT_STARTTLS, NBD_REP_ERR_UNSUP, 'this server does not speak TLS');
}

/** NBD_OPT_STRUCTURED_REPLY and NBD_OPT_EXTENDED_HEADERS (`option`), which may be repeated; the second takes precedence. */
function answerReplyStyle(option: number, data: Uint8Array, replyStyle: ReplyStyle): Answer<ReplyStyle> {
  if (data.length > 0) return refusal(option, NBD_REP_ERR_INVALID, NO_DATA_WANTED);
  if (option === NBD_OPT_EXTENDED_HEADERS) return acceptance(option, NOTHING, 'extended');
  if (replyStyle !== 'extended') return acceptance(option, NOTHING, 'structured');
  return refusal(option, NBD_REP_ERR_EXT_HEADER_REQD, 'extended headers are negotiated already');
}

function answerListMetaContext(data: Uint8Array, exports: ExportDirectory, replyStyle: ReplyStyle): Answer<true> {
  const option = NBD_OPT_LIST_META_CONTEXT;
  const { replies, accepted } = readContextQuestion(option, data, exports, replyStyle);
  if (accepted === undefined) return { replies };
  // The id is reserved in a list.
  const contexts = listedContexts(accepted.queries, accepted.offered).map(({ name }) => ({ id: 0, name }));
  return acceptance(option, encodeMetaContextReplies(option, contexts), true);
}

function answerSetMetaContext(
  data: Uint8Array,
  exports: ExportDirectory,
  replyStyle: ReplyStyle,
): Answer<ContextSelection> {
  const option = NBD_OPT_SET_META_CONTEXT;
  const { replies, accepted } = readContextQuestion(option, data, exports, replyStyle);
  if (accepted === undefined) return { replies };
  const { exportName } = accepted;
  const contexts = selectedContexts(accepted.queries, accepted.offered);
  return acceptance(option, encodeMetaContextReplies(option, contexts), { exportName, contexts });
}

/** NBD_REP_ACK behind the other `replies`. */
function acceptance<T>(option: number, replies: Uint8Array, accepted: T): Answer<T> {
  const all = new WriteCursor(replies.length + 32)
    .bytes(replies)
    .bytes(encodeOptionReply(option, NBD_REP_ACK, NOTHING));
  return { replies: all.finish(), accepted };
}

/** The question, and the names of the contexts that its export offers. */
function readContextQuestion(
  option: number,
  data: Uint8Array,
  exports: ExportDirectory,
  replyStyle: ReplyStyle,
): Answer<ContextQuestion & { readonly offered: readonly string[] }> {
  if (replyStyle === 'simple') {
    return refusal(option, NBD_REP_ERR_INVALID, 'metadata contexts need structured replies, negotiated before');
  }
  const { replies, accepted } = reading(option, () => decodeContextQuestion(data));
  if (accepted === undefined) return { replies };
  const found = exports.find(accepted.exportName);
  if (found === undefined) return refusal(option, NBD_REP_ERR_UNKNOWN, NO_SUCH_EXPORT);
  return { replies, accepted: { ...accepted, offered: found.contexts ?? [] } };
}

/** The data of an option, or the refusal that tells what is wrong with them. */
function reading<T>(option: number, decode: () => T): Answer<T> {
  try {
    return { replies: NOTHING, accepted: decode() };
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    return refusal(option, error.code === 'too-big' ? NBD_REP_ERR_TOO_BIG : NBD_REP_ERR_INVALID, error.message);
  }
}

const NO_DATA_WANTED = 'the option takes no data';
const NO_SUCH_EXPORT = 'there is no such export';

const NOTHING = new Uint8Array(0);
