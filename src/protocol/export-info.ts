import { NBD_FLAG_HAS_FLAGS, NBD_MINIMUM_BLOCK_BYTES_MAX, NBD_PREFERRED_BLOCK_BYTES_MIN } from './constants.js';
import { ProtocolError } from './errors.js';
import { EXPORT_SIZE_BYTES_MAX } from './limits.js';

/** What the handshake tells of an export, on either side of it. */
export interface ExportInfo {
  /** The server's own name for it, where that was told. */
  readonly name?: string;
  readonly description?: string;
  /** 1 to 2^53 - 1; 0 too where it is only information (nbd-server answers NBD_OPT_INFO so). */
  readonly sizeBytes: number;
  /** NBD_FLAG_… transmission flags. */
  readonly flags: number;
  /** Absent: the server named none, and the specification's defaults hold. */
  readonly blockSizes?: BlockSizes;
  /** Names of the metadata contexts that a client may select for it; known to a server only. */
  readonly contexts?: readonly string[];
}

/** proto.md, 'Size constraints'; bytes. */
export interface BlockSizes {
  readonly minimum: number;
  readonly preferred: number;
  readonly maximumPayload: number;
}

/** What holds where no block sizes are told (proto.md, 'Size constraints'). */
export const DEFAULT_BLOCK_SIZES: BlockSizes = { minimum: 1, preferred: 4096, maximumPayload: 33_554_432 };

/** The size of an export that the server says has `sizeBytes`, if a number can hold it. */
export function checkExportSize(sizeBytes: bigint): number {
  if (sizeBytes > BigInt(EXPORT_SIZE_BYTES_MAX)) {
    throw unusable(
      `the server says that the export has ${sizeBytes} bytes; at most ${EXPORT_SIZE_BYTES_MAX} can be used`,
    );
  }
  return Number(sizeBytes);
}

/** The export, if there is anything on it to read or write. */
export function checkNotEmpty(info: ExportInfo): ExportInfo {
  if (info.sizeBytes > 0) return info;
  throw unusable('the server says that the export is empty (0 bytes)');
}

/** The transmission flags as they came; bits that we do not know are the reader's to ignore. */
export function checkTransmissionFlags(flags: number): number {
  if ((flags & NBD_FLAG_HAS_FLAGS) !== 0) return flags;
  throw new ProtocolError('violation', 'the server sent transmission flags without NBD_FLAG_HAS_FLAGS');
}

/** The block sizes, if they obey the specification. */
export function checkBlockSizes(sizes: BlockSizes): BlockSizes {
  const { minimum, preferred, maximumPayload } = sizes;
  if (!isPowerOfTwo(minimum) || minimum > NBD_MINIMUM_BLOCK_BYTES_MAX) {
    throw unusable(`the server asks for a minimum block size of ${minimum}: not a power of two up to 65536`);
  }
  if (!isPowerOfTwo(preferred) || preferred < Math.max(minimum, NBD_PREFERRED_BLOCK_BYTES_MIN)) {
    throw unusable(
      `the server asks for a preferred block size of ${preferred}: not a power of two from 512 and its minimum of ${minimum} on`,
    );
  }
  if (maximumPayload < preferred) {
    throw unusable(
      `the server takes at most ${maximumPayload} bytes at once, less than its preferred block of ${preferred}`,
    );
  }
  return sizes;
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value));
}

function unusable(message: string): ProtocolError {
  return new ProtocolError('unusable-export', message);
}
