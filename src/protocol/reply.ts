import {
  NBD_EINVAL,
  NBD_EIO,
  NBD_ENOMEM,
  NBD_ENOSPC,
  NBD_EPERM,
  NBD_ESHUTDOWN,
  NBD_SIMPLE_REPLY_BYTES,
  NBD_SIMPLE_REPLY_MAGIC,
} from './constants.js';

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
 * The NBD error value for a positive Linux errno, 0 for 0 (proto.md, 'Error values'). ENOTSUP and EOVERFLOW are kept for
 * extensions that we do not negotiate; what has no value of its own is an I/O error.
 */
export function replyError(errno: number): number {
  return errno === 0 ? 0 : (nbdErrors.get(errno) ?? NBD_EIO);
}

// asm-generic/errno-base.h and errno.h, the same numbers on every architecture that Node runs on.
const nbdErrors: ReadonlyMap<number, number> = new Map([
  [1, NBD_EPERM], // EPERM
  [12, NBD_ENOMEM], // ENOMEM
  [13, NBD_EPERM], // EACCES
  [22, NBD_EINVAL], // EINVAL
  [27, NBD_ENOSPC], // EFBIG
  [28, NBD_ENOSPC], // ENOSPC
  [30, NBD_EPERM], // EROFS
  [75, NBD_EINVAL], // EOVERFLOW
  [95, NBD_EINVAL], // EOPNOTSUPP
  [108, NBD_ESHUTDOWN], // ESHUTDOWN
  [122, NBD_ENOSPC], // EDQUOT
]);
