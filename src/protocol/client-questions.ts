import type { ClientOptionName } from './client-goal.js';
import {
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_INFO,
  NBD_REP_META_CONTEXT,
  NBD_REP_SERVER,
} from './constants.js';
import { encodeContextQuestion } from './meta-context.js';
import { encodeExportQuestion } from './option.js';
import type { ReplyStyle } from './reply.js';

/** An option of our client, and which replies it may get. */
export interface ClientQuestion {
  readonly name: ClientOptionName;
  readonly option: number;
  readonly data: Uint8Array;
  /** The type of the replies that come before the last; NBD_REP_ACK where there are none. */
  readonly replyType: number;
  /** Absent: the question is not for one export. */
  readonly exportName?: string;
}

const INFO_TYPES: readonly number[] = [NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE];
const NO_DATA = new Uint8Array(0);

export function repliesQuestion(style: Exclude<ReplyStyle, 'simple'>): ClientQuestion {
  return style === 'extended'
    ? question('OPT_EXTENDED_HEADERS', NBD_OPT_EXTENDED_HEADERS, NO_DATA, NBD_REP_ACK)
    : question('OPT_STRUCTURED_REPLY', NBD_OPT_STRUCTURED_REPLY, NO_DATA, NBD_REP_ACK);
}

export function contextsQuestion(kind: 'list' | 'set', exportName: string, queries: readonly string[]): ClientQuestion {
  const data = encodeContextQuestion({ exportName, queries });
  return kind === 'list'
    ? question('OPT_LIST_META_CONTEXT', NBD_OPT_LIST_META_CONTEXT, data, NBD_REP_META_CONTEXT, exportName)
    : question('OPT_SET_META_CONTEXT', NBD_OPT_SET_META_CONTEXT, data, NBD_REP_META_CONTEXT, exportName);
}

export function exportQuestion(kind: 'go' | 'info', exportName: string): ClientQuestion {
  const data = encodeExportQuestion({ exportName, infoTypes: INFO_TYPES });
  return kind === 'go'
    ? question('OPT_GO', NBD_OPT_GO, data, NBD_REP_INFO, exportName)
    : question('OPT_INFO', NBD_OPT_INFO, data, NBD_REP_INFO, exportName);
}

export function listQuestion(): ClientQuestion {
  return question('OPT_LIST', NBD_OPT_LIST, NO_DATA, NBD_REP_SERVER);
}

function question(
  name: ClientOptionName,
  option: number,
  data: Uint8Array,
  replyType: number,
  exportName?: string,
): ClientQuestion {
  return { name, option, data, replyType, ...(exportName === undefined ? {} : { exportName }) };
}
