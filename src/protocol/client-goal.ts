import type { ProtocolError } from './errors.js';
import type { ExportInfo } from './export-info.js';
import type { MetaContext } from './meta-context.js';
import type { ListedExport } from './option-reply.js';
import type { ReplyStyle } from './reply.js';

/**
 * What a negotiation of our client is for; 'info' and 'list' take their leave when they know it. An export '' is the
 * default one. `replyStyle` is the richest that is asked for, absent: simple; the server may grant a poorer one.
 */
export type ClientGoal =
  | {
      readonly kind: 'go';
      readonly exportName: string;
      readonly replyStyle?: ReplyStyle;
      /** Names of metadata contexts to select; without structured replies there are none. */
      readonly contexts?: readonly string[];
      /** Ask by EXPORT_NAME, even a server that knows GO: for one that does not do GO right. */
      readonly byExportName?: boolean;
    }
  | {
      readonly kind: 'info';
      readonly exportName: string;
      readonly replyStyle?: ReplyStyle;
      readonly listsContexts?: boolean;
    }
  | { readonly kind: 'list' };

export type ClientOutcome =
  | {
      readonly kind: 'transmission';
      readonly export: ExportInfo;
      /** False: the server knows no option but EXPORT_NAME for sure. */
      readonly fixedNewstyle: boolean;
      readonly replyStyle: ReplyStyle;
      /** Those that were selected, as the server numbers them. */
      readonly contexts: readonly MetaContext[];
    }
  | {
      readonly kind: 'info';
      readonly export: ExportInfo;
      readonly replyStyle: ReplyStyle;
      /** Names of those that could be selected; none if that was not asked or not answered. */
      readonly contexts: readonly string[];
    }
  | { readonly kind: 'list'; readonly exports: readonly ListedExport[] }
  | { readonly kind: 'failed'; readonly error: ProtocolError };

/** Bytes to send now (maybe none), and the outcome once there is one; both count when both are there. */
export interface ClientStep {
  readonly send: Uint8Array;
  readonly outcome?: ClientOutcome;
}

/** Options whose replies have the common form. */
export type ClientOptionName =
  | 'OPT_EXTENDED_HEADERS'
  | 'OPT_STRUCTURED_REPLY'
  | 'OPT_LIST_META_CONTEXT'
  | 'OPT_SET_META_CONTEXT'
  | 'OPT_GO'
  | 'OPT_INFO'
  | 'OPT_LIST';

/** The states in the order of the specification; `ENDED` has no way out. */
export type ClientStateName =
  | 'INIT_MAGIC'
  | 'SERVER_MAGIC'
  | 'HANDSHAKE_FLAGS'
  | `${ClientOptionName}.REPLY_HEADER`
  | `${ClientOptionName}.REPLY_DATA`
  | 'OPT_EXPORT_NAME.REPLY'
  | 'OPT_EXPORT_NAME.ZEROES'
  | 'ENDED';
