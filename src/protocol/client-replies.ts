import { NBD_REP_ACK, NBD_REP_FLAG_ERROR } from './constants.js';
import { ProtocolError } from './errors.js';
import {
  type BlockSizes,
  checkBlockSizes,
  checkExportSize,
  checkTransmissionFlags,
  type ExportInfo,
} from './export-info.js';
import {
  CONTEXTS_MAX,
  INFO_REPLIES_MAX,
  LISTED_BYTES_MAX,
  LISTED_EXPORTS_MAX,
  OPTION_REPLY_BYTES_MAX,
} from './limits.js';
import { decodeMetaContext, type MetaContext } from './meta-context.js';
import { decodeInformation, decodeListedExport, type ListedExport, type OptionReplyHeader } from './option-reply.js';
import { printableText } from './text.js';

/** Gathers the NBD_REP_INFO replies to one NBD_OPT_GO or NBD_OPT_INFO into what they tell of the export. */
export class InfoReplies {
  #replies = 0;
  #export: { readonly sizeBytes: number; readonly flags: number } | undefined;
  #name: string | undefined;
  #description: string | undefined;
  #blockSizes: BlockSizes | undefined;

  add(data: Uint8Array): void {
    this.#replies += 1;
    if (this.#replies > INFO_REPLIES_MAX) {
      throw new ProtocolError('too-big', `the server sent more than ${INFO_REPLIES_MAX} pieces of information`);
    }
    const information = decodeInformation(data);
    switch (information.kind) {
      case 'export':
        this.#export = exportFacts(information.sizeBytes, information.flags);
        break;
      case 'name':
        this.#name = information.name;
        break;
      case 'description':
        this.#description = information.description;
        break;
      case 'block-size':
        this.#blockSizes = checkBlockSizes(information.blockSizes);
        break;
      case 'unknown':
        break;
    }
  }

  /** All of it, at the server's NBD_REP_ACK. */
  finish(): ExportInfo {
    if (this.#export === undefined) {
      throw new ProtocolError('violation', 'the server offered the export without saying its size');
    }
    return {
      ...this.#export,
      ...(this.#name === undefined ? {} : { name: this.#name }),
      ...(this.#description === undefined ? {} : { description: this.#description }),
      ...(this.#blockSizes === undefined ? {} : { blockSizes: this.#blockSizes }),
    };
  }
}

/** Gathers the NBD_REP_SERVER replies to one NBD_OPT_LIST. */
export class ListReplies {
  readonly #exports: ListedExport[] = [];
  #bytes = 0;

  add(data: Uint8Array): void {
    this.#bytes += data.length;
    if (this.#exports.length >= LISTED_EXPORTS_MAX || this.#bytes > LISTED_BYTES_MAX) {
      throw new ProtocolError(
        'too-big',
        `the server's list is longer than ${LISTED_EXPORTS_MAX} exports or ${LISTED_BYTES_MAX} bytes`,
      );
    }
    this.#exports.push(decodeListedExport(data));
  }

  finish(): readonly ListedExport[] {
    return this.#exports;
  }
}

/** Gathers the NBD_REP_META_CONTEXT replies to one NBD_OPT_LIST_META_CONTEXT or NBD_OPT_SET_META_CONTEXT. */
export class ContextReplies {
  readonly #contexts: MetaContext[] = [];

  add(data: Uint8Array): void {
    if (this.#contexts.length >= CONTEXTS_MAX) {
      throw new ProtocolError('too-big', `the server has more than ${CONTEXTS_MAX} metadata contexts`);
    }
    this.#contexts.push(decodeMetaContext(data));
  }

  /** Their ids mean nothing. */
  listed(): readonly MetaContext[] {
    return this.#contexts;
  }

  /** Each is one that was asked for by its name, under a number of its own. */
  selected(queries: readonly string[]): readonly MetaContext[] {
    const ids = new Set(this.#contexts.map(({ id }) => id));
    if (ids.size < this.#contexts.length) {
      throw new ProtocolError('violation', 'the server gave two metadata contexts the same number');
    }
    const stray = this.#contexts.find(({ name }) => !queries.includes(name));
    if (stray === undefined) return this.#contexts;
    const name = printableText(stray.name);
    throw new ProtocolError('violation', `the server selected the metadata context '${name}', which nobody asked for`);
  }
}

/** Size and transmission flags, checked, as NBD_INFO_EXPORT and the answer to NBD_OPT_EXPORT_NAME give them. */
export function exportFacts(sizeBytes: bigint, flags: number): { readonly sizeBytes: number; readonly flags: number } {
  return { sizeBytes: checkExportSize(sizeBytes), flags: checkTransmissionFlags(flags) };
}

/** A reply must belong to the option it answers and be one that this option has; its length is bounded here, before its data. */
export function checkReplyHeader(
  header: OptionReplyHeader,
  question: { readonly option: number; readonly replyType: number },
): void {
  const { option, type, dataBytes } = header;
  if (option !== question.option) {
    throw new ProtocolError('violation', `the server answered option ${option}; it was asked ${question.option}`);
  }
  if (type !== NBD_REP_ACK && type !== question.replyType && type < NBD_REP_FLAG_ERROR) {
    throw new ProtocolError('violation', `the server sent reply type ${type}, which does not answer option ${option}`);
  }
  if (type === NBD_REP_ACK && dataBytes !== 0) {
    throw new ProtocolError('violation', `the server sent ${dataBytes} bytes of data with NBD_REP_ACK`);
  }
  if (dataBytes > OPTION_REPLY_BYTES_MAX) {
    throw new ProtocolError(
      'too-big',
      `the server sent a reply with ${dataBytes} bytes of data; at most ${OPTION_REPLY_BYTES_MAX} are taken`,
    );
  }
}
