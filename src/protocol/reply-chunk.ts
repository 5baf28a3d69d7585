import { ReadCursor } from '../base/cursor.js';
import {
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
  NBD_REPLY_TYPE_ERROR_OFFSET,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
  NBD_STATUS_DESCRIPTORS_MAX,
} from './constants.js';
import { ProtocolError } from './errors.js';
import { ERROR_CHUNK_BYTES_MAX, STRING_BYTES_MAX } from './limits.js';

/** An extent as a server describes it, from where the one before it ends. */
export interface StatusExtent {
  /** At least 1; above 2^53 - 1 it is not exact. */
  readonly lengthBytes: number;
  /** Bits that the metadata context defines: NBD_STATE_… for base:allocation. */
  readonly status: number;
}

/** What the payload of a chunk says (proto.md, 'Structured reply types'). */
export type Chunk =
  | { readonly kind: 'none' }
  | { readonly kind: 'data'; readonly offsetBytes: number; readonly data: Uint8Array }
  | { readonly kind: 'hole'; readonly offsetBytes: number; readonly lengthBytes: number }
  | { readonly kind: 'status'; readonly contextId: number; readonly extents: readonly StatusExtent[] }
  | {
      readonly kind: 'error';
      readonly error: number;
      readonly message: string;
      readonly offsetBytes: number | undefined;
    };

/** All error types have it; those that we do not know begin as those that we know. */
const ERROR_BIT = 1 << 15;
const ERROR_HEADER_BYTES = 6;
const OFFSET_BYTES = 8;
const HOLE_BYTES = 12;
// A text that is damaged must not hide the error that it came with.
const lenientUtf8 = new TextDecoder('utf-8');

/**
 * The longest payload that a chunk of `type` has reason to have, so that it is bounded before anything is allocated;
 * `dataBytesMax` is what one may bring of what a READ asked for.
 */
export function chunkBytesMax(type: number, dataBytesMax: number): number {
  if ((type & ERROR_BIT) !== 0) return ERROR_CHUNK_BYTES_MAX;
  switch (type) {
    case NBD_REPLY_TYPE_OFFSET_DATA:
      return OFFSET_BYTES + dataBytesMax;
    case NBD_REPLY_TYPE_OFFSET_HOLE:
      return HOLE_BYTES;
    case NBD_REPLY_TYPE_BLOCK_STATUS:
      return 4 + 8 * NBD_STATUS_DESCRIPTORS_MAX;
    case NBD_REPLY_TYPE_BLOCK_STATUS_EXT:
      return 8 + 16 * NBD_STATUS_DESCRIPTORS_MAX;
    default:
      return 0;
  }
}

/** Reads a payload whose length is bounded; throws a ProtocolError where its lengths do not add up. */
export function decodeChunk(type: number, payload: Uint8Array): Chunk {
  if ((type & ERROR_BIT) !== 0) return decodeErrorChunk(type, payload);
  const cursor = new ReadCursor(payload);
  switch (type) {
    case NBD_REPLY_TYPE_NONE:
      return { kind: 'none' };
    case NBD_REPLY_TYPE_OFFSET_DATA:
      must(payload.length > OFFSET_BYTES, 'OFFSET_DATA has data');
      return { kind: 'data', offsetBytes: Number(cursor.u64be()), data: cursor.bytes(cursor.remainingBytes) };
    case NBD_REPLY_TYPE_OFFSET_HOLE:
      must(payload.length === HOLE_BYTES, 'OFFSET_HOLE has 12 bytes');
      return { kind: 'hole', offsetBytes: Number(cursor.u64be()), lengthBytes: cursor.u32be() };
    case NBD_REPLY_TYPE_BLOCK_STATUS:
      return decodeStatus(cursor);
    case NBD_REPLY_TYPE_BLOCK_STATUS_EXT:
      return decodeExtendedStatus(cursor);
    default:
      throw broken(`no chunk of type ${type}`);
  }
}

function decodeStatus(cursor: ReadCursor): Chunk {
  const count = (cursor.remainingBytes - 4) / 8;
  must(count >= 1 && Number.isInteger(count), 'BLOCK_STATUS has whole descriptors');
  const contextId = cursor.u32be();
  const extents = Array.from({ length: count }, () => ({ lengthBytes: cursor.u32be(), status: cursor.u32be() }));
  return { kind: 'status', contextId, extents };
}

function decodeExtendedStatus(cursor: ReadCursor): Chunk {
  const count = (cursor.remainingBytes - 8) / 16;
  must(count >= 1 && Number.isInteger(count), 'BLOCK_STATUS_EXT has whole descriptors');
  const contextId = cursor.u32be();
  must(cursor.u32be() === count, 'BLOCK_STATUS_EXT tells the number of its descriptors');
  const extents = Array.from({ length: count }, () => ({
    lengthBytes: Number(cursor.u64be()),
    status: Number(cursor.u64be()),
  }));
  return { kind: 'status', contextId, extents };
}

function decodeErrorChunk(type: number, payload: Uint8Array): Chunk {
  const hasOffset = type === NBD_REPLY_TYPE_ERROR_OFFSET;
  const fixedBytes = ERROR_HEADER_BYTES + (hasOffset ? OFFSET_BYTES : 0);
  must(payload.length >= fixedBytes, 'an error is whole');
  const cursor = new ReadCursor(payload);
  const [error, messageBytes] = [cursor.u32be(), cursor.u16be()];
  must(error !== 0, 'no error 0 in an error chunk');
  must(messageBytes <= STRING_BYTES_MAX && messageBytes <= payload.length - fixedBytes, 'the text fits into its chunk');
  const message = lenientUtf8.decode(cursor.bytes(messageBytes));
  return { kind: 'error', error, message, offsetBytes: hasOffset ? Number(cursor.u64be()) : undefined };
}

/** What the specification demands of a server in its replies; `rule` is in its words, as far as they are short. */
export function must(kept: boolean, rule: string): void {
  if (!kept) throw broken(rule);
}

export function broken(rule: string): ProtocolError {
  return new ProtocolError('violation', `the server breaks a rule of the protocol: ${rule}`);
}
