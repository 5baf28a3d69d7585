import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_EOVERFLOW,
  NBD_EPERM,
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_ROTATIONAL,
  NBD_FLAG_SEND_CACHE,
  NBD_FLAG_SEND_DF,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
} from './constants.js';
import { PAYLOAD_BYTES_MAX } from './limits.js';
import type { ReplyStyle } from './reply.js';
import { payloadBytes, type Request } from './request.js';

/** What the rules need to know of the export and of what was negotiated for it. */
export interface ExportRules {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** Offsets and lengths must be multiples of it; a power of two. */
  readonly minimumBlockBytes: number;
  readonly replyStyle: ReplyStyle;
  /** Metadata contexts that the client has selected. */
  readonly statusContexts: number;
  /** The NBD_FLAG_… that the client was told; whether DF may be asked for is the reply style's to say. */
  readonly flags: number;
}

/** What decides on the transmission flags of an export. */
export interface ExportTraits {
  readonly readOnly: boolean;
  /** A flush or FUA on one connection holds for all, and a client may have more than one. */
  readonly multiConn: boolean;
  readonly rotational: boolean;
  /** A WRITE_ZEROES that has to be fast can tell at once whether it is. */
  readonly fastZero: boolean;
  readonly trim: boolean;
}

/**
 * Every rule of a request: 0, or the NBD error value that answers it (proto.md, 'Request types', 'Error values'). A
 * request that passes needs no further check before the image does it. A length of 0 is in order everywhere but in
 * BLOCK_STATUS, whose reply would have nothing to describe.
 */
export function checkRequest(request: Readonly<Request>, rules: ExportRules): number {
  // FUA is in order with every command, once it was announced.
  const flags = announced(rules, NBD_FLAG_SEND_FUA) ? request.flags & ~NBD_CMD_FLAG_FUA : request.flags;
  switch (request.type) {
    case NBD_CMD_READ:
      if (flags !== 0 && (flags !== NBD_CMD_FLAG_DF || rules.replyStyle === 'simple')) return NBD_EINVAL;
      if (request.lengthBytes > PAYLOAD_BYTES_MAX) return flags === 0 ? NBD_EINVAL : NBD_EOVERFLOW;
      return checkRange(request, rules, NBD_EINVAL);
    case NBD_CMD_WRITE:
      // QEMU leaves it out (payloadBytes).
      if (flags !== 0 && (flags !== NBD_CMD_FLAG_PAYLOAD_LEN || rules.replyStyle !== 'extended')) return NBD_EINVAL;
      if (request.lengthBytes > PAYLOAD_BYTES_MAX) return NBD_EINVAL;
      return rules.readOnly ? NBD_EPERM : checkRange(request, rules, NBD_ENOSPC);
    case NBD_CMD_TRIM:
      if (flags !== 0) return NBD_EINVAL;
      if (rules.readOnly) return NBD_EPERM;
      return announced(rules, NBD_FLAG_SEND_TRIM) ? checkRange(request, rules, NBD_EINVAL) : NBD_EINVAL;
    case NBD_CMD_CACHE:
      if (flags !== 0 || !announced(rules, NBD_FLAG_SEND_CACHE)) return NBD_EINVAL;
      return checkRange(request, rules, NBD_EINVAL);
    case NBD_CMD_WRITE_ZEROES:
      return checkWriteZeroes(request, flags, rules);
    case NBD_CMD_BLOCK_STATUS:
      if ((flags & ~NBD_CMD_FLAG_REQ_ONE) !== 0) return NBD_EINVAL;
      if (rules.statusContexts === 0 || request.lengthBytes === 0) return NBD_EINVAL;
      return checkRange(request, rules, NBD_EINVAL);
    case NBD_CMD_FLUSH:
      if (flags !== 0 || !announced(rules, NBD_FLAG_SEND_FLUSH)) return NBD_EINVAL;
      return request.offsetBytes === 0 && request.lengthBytes === 0 ? 0 : NBD_EINVAL;
    case NBD_CMD_DISC:
      return 0; // it has no reply that could tell of an error
    default:
      return NBD_EINVAL;
  }
}

/**
 * Whether the connection ends once the request is answered: more data than PAYLOAD_BYTES_MAX follows it, which would
 * have to be read for nothing before the next request. Data of a refused request below that is read and thrown away.
 */
export function endsConnection(request: Readonly<Request>, replyStyle: ReplyStyle): boolean {
  return payloadBytes(request, replyStyle) > PAYLOAD_BYTES_MAX;
}

/** The transmission flags that tell a client what the rules here let pass; `announcedFlags` adds what depends on the client. */
export function transmissionFlags({ readOnly, multiConn, rotational, fastZero, trim }: ExportTraits): number {
  const always = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_CACHE;
  const medium = (multiConn ? NBD_FLAG_CAN_MULTI_CONN : 0) | (rotational ? NBD_FLAG_ROTATIONAL : 0);
  if (readOnly) return always | medium | NBD_FLAG_READ_ONLY;
  const changes = NBD_FLAG_SEND_WRITE_ZEROES | (fastZero ? NBD_FLAG_SEND_FAST_ZERO : 0);
  return always | medium | changes | (trim ? NBD_FLAG_SEND_TRIM : 0);
}

/** The transmission flags as a client is told them: SEND_DF once its READs are answered in chunks, and only then. */
export function announcedFlags(flags: number, replyStyle: ReplyStyle): number {
  return replyStyle === 'simple' ? flags & ~NBD_FLAG_SEND_DF : flags | NBD_FLAG_SEND_DF;
}

function checkWriteZeroes(request: Readonly<Request>, flags: number, rules: ExportRules): number {
  const fastZero = announced(rules, NBD_FLAG_SEND_FAST_ZERO) ? NBD_CMD_FLAG_FAST_ZERO : 0;
  if ((flags & ~(NBD_CMD_FLAG_NO_HOLE | fastZero)) !== 0) return NBD_EINVAL;
  if (rules.readOnly) return NBD_EPERM;
  return announced(rules, NBD_FLAG_SEND_WRITE_ZEROES) ? checkRange(request, rules, NBD_ENOSPC) : NBD_EINVAL;
}

function checkRange(request: Readonly<Request>, rules: ExportRules, beyondEnd: number): number {
  const { offsetBytes, lengthBytes } = request;
  // A sum above 2^53 - 1 may be rounded, but never down to a size that an export can have.
  if (offsetBytes + lengthBytes > rules.sizeBytes) return beyondEnd;
  const mask = rules.minimumBlockBytes - 1;
  const misaligned = (offsetBytes % rules.minimumBlockBytes) + (lengthBytes & mask) !== 0;
  return misaligned ? NBD_EINVAL : 0;
}

function announced(rules: ExportRules, flag: number): boolean {
  return (rules.flags & flag) !== 0;
}
