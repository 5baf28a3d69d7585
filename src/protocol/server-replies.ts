import { WriteCursor } from '../base/cursor.js';
import {
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_NAME,
  NBD_OPT_LIST,
  NBD_REP_INFO,
  NBD_REP_META_CONTEXT,
  NBD_REP_SERVER,
} from './constants.js';
import { DEFAULT_BLOCK_SIZES, type ExportInfo } from './export-info.js';
import { encodeMetaContext, type MetaContext } from './meta-context.js';
import type { ExportQuestion } from './option.js';
import { encodeInformation, encodeListedExport, encodeOptionReply, type Information } from './option-reply.js';

/**
 * The NBD_REP_INFO replies to a GO or INFO (`option`) for the export `found`: size and flags always, the rest if the
 * client asked and there is something to say. Block sizes that bind the client more than the defaults are told unasked.
 */
export function encodeInformationReplies(option: number, question: ExportQuestion, found: ExportInfo): Uint8Array {
  const asked = new Set(question.infoTypes);
  const { name = question.exportName, description, blockSizes = DEFAULT_BLOCK_SIZES } = found;
  const facts: Exclude<Information, { kind: 'unknown' }>[] = [
    { kind: 'export', sizeBytes: BigInt(found.sizeBytes), flags: found.flags },
  ];
  if (asked.has(NBD_INFO_NAME)) facts.push({ kind: 'name', name });
  if (asked.has(NBD_INFO_DESCRIPTION) && description !== undefined) facts.push({ kind: 'description', description });
  if (asked.has(NBD_INFO_BLOCK_SIZE) || blockSizes.minimum > 1) facts.push({ kind: 'block-size', blockSizes });
  const cursor = new WriteCursor(128);
  for (const fact of facts) cursor.bytes(encodeOptionReply(option, NBD_REP_INFO, encodeInformation(fact)));
  return cursor.finish();
}

/** The NBD_REP_SERVER replies to a LIST. */
export function encodeListReplies(exports: readonly ExportInfo[]): Uint8Array {
  const cursor = new WriteCursor(128);
  for (const { name = '', description = '' } of exports) {
    cursor.bytes(encodeOptionReply(NBD_OPT_LIST, NBD_REP_SERVER, encodeListedExport({ name, description })));
  }
  return cursor.finish();
}

/** The NBD_REP_META_CONTEXT replies to a LIST_META_CONTEXT or SET_META_CONTEXT (`option`). */
export function encodeMetaContextReplies(option: number, contexts: readonly MetaContext[]): Uint8Array {
  const cursor = new WriteCursor();
  for (const context of contexts) {
    cursor.bytes(encodeOptionReply(option, NBD_REP_META_CONTEXT, encodeMetaContext(context)));
  }
  return cursor.finish();
}
