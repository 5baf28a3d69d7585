import { CursorError, ReadCursor, WriteCursor } from '../base/cursor.js';
import {
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_EXPORT,
  NBD_INFO_NAME,
  NBD_OPTION_REPLY_HEADER_BYTES,
  NBD_OPTION_REPLY_MAGIC,
} from './constants.js';
import { ProtocolError } from './errors.js';
import type { BlockSizes } from './export-info.js';
import { decodeString, encodeString } from './text.js';

/** What stands before the data of a reply to an option. */
export interface OptionReplyHeader {
  readonly option: number;
  /** NBD_REP_… or a number we do not know. */
  readonly type: number;
  readonly dataBytes: number;
}

/** One line of NBD_OPT_LIST's answer. */
export interface ListedExport {
  readonly name: string;
  readonly description: string;
}

/** One NBD_REP_INFO; the kinds are NBD_INFO_EXPORT, _NAME, _DESCRIPTION and _BLOCK_SIZE. */
export type Information =
  | { readonly kind: 'export'; readonly sizeBytes: bigint; readonly flags: number }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'description'; readonly description: string }
  | { readonly kind: 'block-size'; readonly blockSizes: BlockSizes }
  | { readonly kind: 'unknown'; readonly infoType: number };

/** A whole reply (proto.md, 'Fixed newstyle negotiation'). */
export function encodeOptionReply(option: number, type: number, data: Uint8Array): Uint8Array<ArrayBuffer> {
  return new WriteCursor(NBD_OPTION_REPLY_HEADER_BYTES + data.length)
    .u64be(NBD_OPTION_REPLY_MAGIC)
    .u32be(option)
    .u32be(type)
    .u32be(data.length)
    .bytes(data)
    .finish();
}

/** Reads the 20 bytes before a reply's data. Throws a ProtocolError after which the server cannot be understood. */
export function decodeOptionReplyHeader(bytes: Uint8Array): OptionReplyHeader {
  const cursor = new ReadCursor(bytes);
  if (cursor.u64be() !== NBD_OPTION_REPLY_MAGIC) {
    throw new ProtocolError('violation', 'the server sent something else where a reply to an option should begin');
  }
  return { option: cursor.u32be(), type: cursor.u32be(), dataBytes: cursor.u32be() };
}

/** The data of NBD_REP_SERVER. */
export function encodeListedExport(listed: ListedExport): Uint8Array<ArrayBuffer> {
  const name = encodeString(listed.name, 'the name of an export');
  const description = encodeString(listed.description, 'the description of an export');
  return new WriteCursor(4 + name.length + description.length)
    .u32be(name.length)
    .bytes(name)
    .bytes(description)
    .finish();
}

export function decodeListedExport(data: Uint8Array): ListedExport {
  return reading(data, 'NBD_REP_SERVER', (cursor) => ({
    name: decodeString(cursor.bytes(cursor.u32be()), 'the server', 'a name of an export'),
    description: decodeString(cursor.bytes(cursor.remainingBytes), 'the server', 'a description of an export'),
  }));
}

/** The data of NBD_REP_INFO. */
export function encodeInformation(information: Exclude<Information, { kind: 'unknown' }>): Uint8Array<ArrayBuffer> {
  const cursor = new WriteCursor();
  switch (information.kind) {
    case 'export':
      return cursor.u16be(NBD_INFO_EXPORT).u64be(information.sizeBytes).u16be(information.flags).finish();
    case 'name':
      return cursor.u16be(NBD_INFO_NAME).bytes(encodeString(information.name, 'the name of an export')).finish();
    case 'description':
      return cursor
        .u16be(NBD_INFO_DESCRIPTION)
        .bytes(encodeString(information.description, 'the description of an export'))
        .finish();
    case 'block-size': {
      const { minimum, preferred, maximumPayload } = information.blockSizes;
      return cursor.u16be(NBD_INFO_BLOCK_SIZE).u32be(minimum).u32be(preferred).u32be(maximumPayload).finish();
    }
  }
}

/** Reads the data of NBD_REP_INFO: its shape only, whether the values make sense is for export-info to say. */
export function decodeInformation(data: Uint8Array): Information {
  return reading(data, 'NBD_REP_INFO', (cursor): Information => {
    const infoType = cursor.u16be();
    switch (infoType) {
      case NBD_INFO_EXPORT:
        return { kind: 'export', sizeBytes: cursor.u64be(), flags: cursor.u16be() };
      case NBD_INFO_NAME:
        return {
          kind: 'name',
          name: decodeString(cursor.bytes(cursor.remainingBytes), 'the server', 'an export name'),
        };
      case NBD_INFO_DESCRIPTION: {
        const description = cursor.bytes(cursor.remainingBytes);
        return { kind: 'description', description: decodeString(description, 'the server', 'a description') };
      }
      case NBD_INFO_BLOCK_SIZE: {
        const blockSizes = { minimum: cursor.u32be(), preferred: cursor.u32be(), maximumPayload: cursor.u32be() };
        return { kind: 'block-size', blockSizes };
      }
      default:
        cursor.bytes(cursor.remainingBytes);
        return { kind: 'unknown', infoType };
    }
  });
}

/** Reads all of `data`; too short and too long are the server's fault. */
function reading<T>(data: Uint8Array, message: string, read: (cursor: ReadCursor) => T): T {
  try {
    const cursor = new ReadCursor(data);
    const value = read(cursor);
    if (cursor.remainingBytes === 0) return value;
  } catch (error) {
    if (!(error instanceof CursorError)) throw error;
  }
  throw new ProtocolError('violation', `the server sent a ${message} whose lengths do not add up`);
}
