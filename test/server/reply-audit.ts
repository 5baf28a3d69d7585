import type { RequestedRange, ServerReply, TransmissionTerms } from '#tsnbd/protocol/awaited-reply.js';
import {
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_READ,
  NBD_CMD_WRITE_ZEROES,
  NBD_ENOTSUP,
  NBD_EOVERFLOW,
  NBD_ERRORS,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_ERROR_OFFSET,
  NBD_STATE_HOLE,
  NBD_STATE_ZERO,
} from '#tsnbd/protocol/constants.js';
import { DEFAULT_BLOCK_SIZES } from '#tsnbd/protocol/export-info.js';
import type { MetaContext } from '#tsnbd/protocol/meta-context.js';
import type { ReplyStyle } from '#tsnbd/protocol/reply.js';
import type { StatusExtent } from '#tsnbd/protocol/reply-chunk.js';

const ERROR_TYPES = [NBD_REPLY_TYPE_ERROR, NBD_REPLY_TYPE_ERROR_OFFSET];

/** Terms without a handshake. */
export function agreement(
  replyStyle: ReplyStyle,
  sizeBytes: number,
  contexts: readonly MetaContext[] = [],
): TransmissionTerms {
  return { replyStyle, sizeBytes, contexts, blockSizes: DEFAULT_BLOCK_SIZES };
}

/**
 * Holds a reply that our client took against what the specification asks of servers beyond that, and clients bear: ours
 * does none of it. Throws at the first breach.
 */
export function auditReply(asked: RequestedRange, terms: TransmissionTerms, reply: ServerReply): void {
  const { chunkTypes, chunkFlags, error, message, extents } = reply;
  must((chunkFlags & ~NBD_REPLY_FLAG_DONE) === 0, `no unknown flag (0x${chunkFlags.toString(16)})`);
  must(chunkTypes.filter((type) => type === NBD_REPLY_TYPE_ERROR).length < 2, 'one ERROR a reply');
  must(
    chunkTypes.every((type) => type < 0x8000 || ERROR_TYPES.includes(type)),
    'no unknown kind of error',
  );
  if (error !== 0) auditError(asked, error);
  must(!/[\0\ufffd]/.test(message), 'no NUL in a text, and nothing but UTF-8');
  for (const described of extents.values()) auditExtents(asked, terms, described);
}

function auditError({ type, flags }: RequestedRange, error: number): void {
  must(NBD_ERRORS.includes(error), `no error ${error}`);
  const isFast = type === NBD_CMD_WRITE_ZEROES && (flags & NBD_CMD_FLAG_FAST_ZERO) !== 0;
  must(error !== NBD_ENOTSUP || isFast, 'ENOTSUP answers only FAST_ZERO');
  const isWhole = type === NBD_CMD_READ && (flags & NBD_CMD_FLAG_DF) !== 0;
  must(error !== NBD_EOVERFLOW || isWhole, 'EOVERFLOW answers only DF');
}

function auditExtents(
  { offsetBytes }: RequestedRange,
  { blockSizes, sizeBytes }: TransmissionTerms,
  extents: readonly StatusExtent[],
): void {
  must(
    extents.every(({ lengthBytes }) => lengthBytes % blockSizes.minimum === 0),
    'an extent has whole blocks',
  );
  must(
    extents.every(({ status }) => (status & ~(NBD_STATE_HOLE | NBD_STATE_ZERO)) === 0 && status < 4),
    'no unknown status',
  );
  const sum = extents.reduce((bytes, { lengthBytes }) => bytes + lengthBytes, 0);
  must(offsetBytes + sum <= sizeBytes, 'no extent goes beyond the export');
}

export function must(kept: boolean, rule: string): void {
  if (!kept) throw new Error(`the server breaks a rule: ${rule}`);
}
