import {
  NBD_CMD_DISC,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_EPERM,
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
} from './constants.js';
import { PAYLOAD_BYTES_MAX } from './limits.js';
import { payloadBytes, type Request } from './request.js';

/** What the rules need to know of the export. */
export interface ExportRules {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** Offsets and lengths must be multiples of it; a power of two. */
  readonly minimumBlockBytes: number;
}

/**
 * Every rule of a request: 0, or the NBD error value that answers it (proto.md, 'Request types', 'Error values'). A
 * request that passes needs no further check before the image does it. A length of 0 is in order everywhere.
 */
export function checkRequest(request: Readonly<Request>, rules: ExportRules): number {
  switch (request.type) {
    case NBD_CMD_READ:
      if ((request.flags & ~NBD_CMD_FLAG_FUA) !== 0) return NBD_EINVAL;
      if (request.lengthBytes > PAYLOAD_BYTES_MAX) return NBD_EINVAL;
      return checkRange(request, rules, NBD_EINVAL);
    case NBD_CMD_WRITE:
      if ((request.flags & ~NBD_CMD_FLAG_FUA) !== 0) return NBD_EINVAL;
      if (request.lengthBytes > PAYLOAD_BYTES_MAX) return NBD_EINVAL;
      return rules.readOnly ? NBD_EPERM : checkRange(request, rules, NBD_ENOSPC);
    case NBD_CMD_TRIM:
      if ((request.flags & ~NBD_CMD_FLAG_FUA) !== 0) return NBD_EINVAL;
      return rules.readOnly ? NBD_EPERM : checkRange(request, rules, NBD_EINVAL);
    case NBD_CMD_WRITE_ZEROES:
      if ((request.flags & ~(NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE)) !== 0) return NBD_EINVAL;
      return rules.readOnly ? NBD_EPERM : checkRange(request, rules, NBD_ENOSPC);
    case NBD_CMD_FLUSH:
      if ((request.flags & ~NBD_CMD_FLAG_FUA) !== 0) return NBD_EINVAL;
      return request.offsetBytes === 0 && request.lengthBytes === 0 ? 0 : NBD_EINVAL;
    case NBD_CMD_DISC:
      return 0; // it has no reply that could tell of an error
    default:
      return NBD_EINVAL;
  }
}

/**
 * Whether the connection ends once the request is answered: more data than PAYLOAD_BYTES_MAX follows it, which would
 * have to be read for nothing before the next request. Data of a refused WRITE below that is read and thrown away.
 */
export function endsConnection(request: Readonly<Request>): boolean {
  return payloadBytes(request) > PAYLOAD_BYTES_MAX;
}

/** The transmission flags that tell a client what the rules here let pass. */
export function transmissionFlags(readOnly: boolean): number {
  const always = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_CAN_MULTI_CONN;
  return always | (readOnly ? NBD_FLAG_READ_ONLY : NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES);
}

function checkRange(request: Readonly<Request>, rules: ExportRules, beyondEnd: number): number {
  const { offsetBytes, lengthBytes } = request;
  // A sum above 2^53 - 1 may be rounded, but never down to a size that an export can have.
  if (offsetBytes + lengthBytes > rules.sizeBytes) return beyondEnd;
  const mask = rules.minimumBlockBytes - 1;
  const misaligned = (offsetBytes % rules.minimumBlockBytes) + (lengthBytes & mask) !== 0;
  return misaligned ? NBD_EINVAL : 0;
}
