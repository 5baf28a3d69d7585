import {
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_READ,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_EIO,
  NBD_ENOMEM,
  NBD_ENOSPC,
  NBD_ENOTSUP,
  NBD_EOVERFLOW,
  NBD_EPERM,
  NBD_ESHUTDOWN,
  NBD_EXTENDED_REPLY_BYTES,
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_SIMPLE_REPLY_BYTES,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_BYTES,
  NBD_STRUCTURED_REPLY_MAGIC,
} from './constants.js';

/**
 * What the handshake settled on for the transmission. 'structured': a READ is answered in chunks, everything else may be
 * answered simply; 'extended': 32-byte headers both ways, and every reply in chunks.
 */
export type ReplyStyle = 'simple' | 'structured' | 'extended';

/**
 * Writes the 16 bytes of a simple reply at `at` (proto.md, 'Simple reply message'): `error` is 0 or an NBD error value,
 * the cookie's halves are the request's. Answers where the data, or the next reply, goes.
 */
export function writeSimpleReply(
  view: DataView,
  at: number,
  error: number,
  cookieHigh: number,
  cookieLow: number,
): number {
  view.setUint32(at, NBD_SIMPLE_REPLY_MAGIC);
  view.setUint32(at + 4, error);
  view.setUint32(at + 8, cookieHigh);
  view.setUint32(at + 12, cookieLow);
  return at + NBD_SIMPLE_REPLY_BYTES;
}

/**
 * Writes the 20 bytes before a chunk's payload of `lengthBytes` (proto.md, 'Structured reply chunk message'): `flags` are
 * NBD_REPLY_FLAG_… bits, `type` is NBD_REPLY_TYPE_…. Answers where the payload goes.
 */
export function writeChunkHeader(
  view: DataView,
  at: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  lengthBytes: number,
): number {
  view.setUint32(at, NBD_STRUCTURED_REPLY_MAGIC);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, type);
  view.setUint32(at + 8, cookieHigh);
  view.setUint32(at + 12, cookieLow);
  view.setUint32(at + 16, lengthBytes);
  return at + NBD_STRUCTURED_REPLY_BYTES;
}

/**
 * The same under extended headers, 32 bytes (proto.md, 'Extended reply chunk message'). The offset's halves are the
 * request's, whatever offset the payload speaks of.
 */
export function writeExtendedChunkHeader(
  view: DataView,
  at: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  offsetHigh: number,
  offsetLow: number,
  lengthBytes: number,
): number {
  view.setUint32(at, NBD_EXTENDED_REPLY_MAGIC);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, type);
  view.setUint32(at + 8, cookieHigh);
  view.setUint32(at + 12, cookieLow);
  view.setUint32(at + 16, offsetHigh);
  view.setUint32(at + 20, offsetLow);
  writeU64(view, at + 24, lengthBytes);
  return at + NBD_EXTENDED_REPLY_BYTES;
}

// Payloads of chunks (proto.md, 'Structured reply types'), in the order of their types. Each answers where the next byte goes.

/** Begins NBD_REPLY_TYPE_OFFSET_DATA, the data follow; ends NBD_REPLY_TYPE_ERROR_OFFSET. */
export function writeOffset(view: DataView, at: number, offsetBytes: number): number {
  return writeU64(view, at, offsetBytes);
}

/** All of NBD_REPLY_TYPE_OFFSET_HOLE; `holeBytes` is from 1 to 2^32 - 1. */
export function writeHole(view: DataView, at: number, offsetBytes: number, holeBytes: number): number {
  const next = writeU64(view, at, offsetBytes);
  view.setUint32(next, holeBytes);
  return next + 4;
}

/** Begins NBD_REPLY_TYPE_BLOCK_STATUS, one or more descriptors follow. */
export function writeContextId(view: DataView, at: number, contextId: number): number {
  view.setUint32(at, contextId);
  return at + 4;
}

/** A descriptor there: an extent of `lengthBytes`, from 1 to 2^32 - 1, and its NBD_STATE_… flags. */
export function writeStatusDescriptor(view: DataView, at: number, lengthBytes: number, status: number): number {
  view.setUint32(at, lengthBytes);
  view.setUint32(at + 4, status);
  return at + 8;
}

/** Begins NBD_REPLY_TYPE_BLOCK_STATUS_EXT, so many descriptors follow. */
export function writeExtendedContextId(view: DataView, at: number, contextId: number, descriptors: number): number {
  view.setUint32(at, contextId);
  view.setUint32(at + 4, descriptors);
  return at + 8;
}

/** A descriptor there. */
export function writeExtendedStatusDescriptor(view: DataView, at: number, lengthBytes: number, status: number): number {
  return writeU64(view, writeU64(view, at, lengthBytes), status);
}

/** All of NBD_REPLY_TYPE_ERROR, and the beginning of _ERROR_OFFSET: `message` is UTF-8 for a human, maybe empty. */
export function writeError(view: DataView, at: number, error: number, message: Uint8Array): number {
  view.setUint32(at, error);
  view.setUint16(at + 4, message.length);
  for (let index = 0; index < message.length; index += 1) view.setUint8(at + 6 + index, message[index] ?? 0);
  return at + 6 + message.length;
}

/**
 * The NBD error value for a positive Linux errno, 0 for 0 (proto.md, 'Error values'). ENOTSUP answers only a fast
 * WRITE_ZEROES, EOVERFLOW only a READ that must not be fragmented; what has no value of its own is an I/O error.
 */
export function replyError(errno: number, request: Readonly<{ type: number; flags: number }>): number {
  if (errno === 0) return 0;
  const { type, flags } = request;
  if (errno === EOPNOTSUPP && type === NBD_CMD_WRITE_ZEROES && (flags & NBD_CMD_FLAG_FAST_ZERO) !== 0) {
    return NBD_ENOTSUP;
  }
  if (errno === EOVERFLOW && type === NBD_CMD_READ && (flags & NBD_CMD_FLAG_DF) !== 0) return NBD_EOVERFLOW;
  return nbdErrors.get(errno) ?? NBD_EIO;
}

// asm-generic/errno-base.h and errno.h, the same numbers on every architecture that Node runs on.
const EOVERFLOW = 75;
const EOPNOTSUPP = 95;
const nbdErrors: ReadonlyMap<number, number> = new Map([
  [1, NBD_EPERM], // EPERM
  [12, NBD_ENOMEM], // ENOMEM
  [13, NBD_EPERM], // EACCES
  [22, NBD_EINVAL], // EINVAL
  [27, NBD_ENOSPC], // EFBIG
  [28, NBD_ENOSPC], // ENOSPC
  [30, NBD_EPERM], // EROFS
  [EOVERFLOW, NBD_EINVAL],
  [EOPNOTSUPP, NBD_EINVAL],
  [108, NBD_ESHUTDOWN], // ESHUTDOWN
  [122, NBD_ENOSPC], // EDQUOT
]);

/** `value` is exact: at most 2^53 - 1. */
function writeU64(view: DataView, at: number, value: number): number {
  view.setUint32(at, Math.floor(value / 2 ** 32));
  view.setUint32(at + 4, value % 2 ** 32);
  return at + 8;
}
