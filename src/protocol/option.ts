import { CursorError, ReadCursor, WriteCursor } from '../base/cursor.js';
import { NBD_OPTION_HEADER_BYTES, NBD_OPTION_MAGIC } from './constants.js';
import { ProtocolError } from './errors.js';
import { decodeString, encodeString } from './text.js';

/** What stands before an option's data. */
export interface OptionHeader {
  /** NBD_OPT_… or a number we do not know. */
  readonly option: number;
  readonly dataBytes: number;
}

/** The data of NBD_OPT_GO and NBD_OPT_INFO. */
export interface ExportQuestion {
  /** '' is the default export. */
  readonly exportName: string;
  /** NBD_INFO_… that the client would like; unknown ones are ignored. */
  readonly infoTypes: readonly number[];
}

/** A whole option (proto.md, 'Newstyle negotiation'). */
export function encodeOption(option: number, data: Uint8Array): Uint8Array<ArrayBuffer> {
  return new WriteCursor(NBD_OPTION_HEADER_BYTES + data.length)
    .u64be(NBD_OPTION_MAGIC)
    .u32be(option)
    .u32be(data.length)
    .bytes(data)
    .finish();
}

/** Reads the 16 bytes before an option's data. Throws a ProtocolError after which the client cannot be understood. */
export function decodeOptionHeader(bytes: Uint8Array): OptionHeader {
  const cursor = new ReadCursor(bytes);
  if (cursor.u64be() !== NBD_OPTION_MAGIC) {
    throw new ProtocolError('violation', 'the client sent something else where an option should begin');
  }
  return { option: cursor.u32be(), dataBytes: cursor.u32be() };
}

/** The data of NBD_OPT_EXPORT_NAME: the name and nothing else. */
export function encodeExportName(exportName: string): Uint8Array {
  return encodeString(exportName, 'the name of the export');
}

export function decodeExportName(data: Uint8Array): string {
  return decodeString(data, 'the client', 'a name of an export');
}

export function encodeExportQuestion(question: ExportQuestion): Uint8Array<ArrayBuffer> {
  const name = encodeExportName(question.exportName);
  const cursor = new WriteCursor(6 + name.length + 2 * question.infoTypes.length)
    .u32be(name.length)
    .bytes(name)
    .u16be(question.infoTypes.length);
  for (const infoType of question.infoTypes) cursor.u16be(infoType);
  return cursor.finish();
}

/** Reads the data of NBD_OPT_GO or NBD_OPT_INFO, of at most OPTION_DATA_BYTES_MAX; throws a ProtocolError on any misfit. */
export function decodeExportQuestion(data: Uint8Array): ExportQuestion {
  try {
    const cursor = new ReadCursor(data);
    const exportName = decodeExportName(cursor.bytes(cursor.u32be()));
    const infoTypes = Array.from({ length: cursor.u16be() }, () => cursor.u16be());
    if (cursor.remainingBytes === 0) return { exportName, infoTypes };
  } catch (error) {
    if (!(error instanceof CursorError)) throw error;
  }
  throw new ProtocolError('violation', 'the lengths in the question for an export do not add up');
}
