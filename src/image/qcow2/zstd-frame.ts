import { SequenceLengths } from './zstd-sequences.js';

const MAGIC = 0xfd2fb528;
const HEADER_BYTES_MIN = 6;
const CHECKSUM_BYTES = 4;
const BLOCK_HEADER_BYTES = 3;
const BLOCK_REPEATED = 1;
const BLOCK_COMPRESSED = 2;
const BLOCK_RESERVED = 3;
/** Of a compressed block's content. */
const BLOCK_BYTES_MAX = 131_072;
const LITERALS_REPEATED = 1;
const SIZE_BYTES = [0, 2, 4, 8];
const SINGLE_SEGMENT = 0x20;
const RESERVED = 8;
const CHECKSUM = 4;
const DICTIONARY = 3;
/** Of a frame that names its content's size in 4 bytes, and no window. */
const OWN_HEADER_BYTES = 9;
const OWN_DESCRIPTOR = 0x80 | SINGLE_SEGMENT;
/**
 * Encoders make blocks of up to 128 KiB, in the smallest window of 1 KiB; where they split one, they gain by it (libzstd: 196
 * pieces of 128 KiB at most). Some may be empty. Each costs the one who decompresses it a move of the whole window.
 */
const BYTES_A_BLOCK_MIN = 512;
const MORE_BLOCKS = 64;

/**
 * The zstd frame at the start of `bytes` (RFC 8878, 'Zstandard Frames'), without what follows it in the last sector, and
 * with a header of ours: it says that the content has `contentBytes`. So whoever decompresses it takes no more memory
 * than that for its window, whatever the image claims, and no longer than for so much content. Absent where there is no
 * whole frame, or one with a dictionary, with more content, or with more blocks than any encoder makes.
 */
export function boundedFrame(bytes: Uint8Array, contentBytes: number): Uint8Array | undefined {
  const headerBytes = frameHeaderBytes(bytes);
  if (headerBytes === 0) return undefined;
  const end = blocksEnd(bytes, headerBytes, contentBytes);
  const checksumBytes = ((bytes[4] ?? 0) & CHECKSUM) !== 0 ? CHECKSUM_BYTES : 0;
  if (end === 0 || end + checksumBytes > bytes.length) return undefined;
  const frame = new Uint8Array(OWN_HEADER_BYTES + end - headerBytes);
  const view = new DataView(frame.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint8(4, OWN_DESCRIPTOR);
  view.setUint32(5, contentBytes, true);
  frame.set(bytes.subarray(headerBytes, end), OWN_HEADER_BYTES);
  return frame;
}

function frameHeaderBytes(bytes: Uint8Array): number {
  if (bytes.length < HEADER_BYTES_MIN) return 0;
  const descriptor = bytes[4] ?? 0;
  const magic = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  if (magic !== MAGIC || (descriptor & (RESERVED | DICTIONARY)) !== 0) return 0;
  const isSingleSegment = (descriptor & SINGLE_SEGMENT) !== 0;
  const sizeBytes = descriptor >>> 6 === 0 && isSingleSegment ? 1 : (SIZE_BYTES[descriptor >>> 6] ?? 0);
  return 5 + (isSingleSegment ? 0 : 1) + sizeBytes;
}

/** Behind the last block of a frame; 0 where it is not there, or there are too many, or with too much in them. */
function blocksEnd(bytes: Uint8Array, begin: number, contentBytes: number): number {
  const blocksMax = contentBytes / BYTES_A_BLOCK_MIN + MORE_BLOCKS;
  const sequences = new SequenceLengths();
  let left = contentBytes;
  let at = begin;
  let isLast = false;
  for (let blocks = 1; !isLast; blocks += 1) {
    if (at + BLOCK_HEADER_BYTES > bytes.length || blocks > blocksMax) return 0;
    const header = (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16);
    const type = (header >>> 1) & 3;
    if (type === BLOCK_RESERVED) return 0;
    const body = at + BLOCK_HEADER_BYTES;
    at = body + (type === BLOCK_REPEATED ? 1 : header >>> 3);
    if (at > bytes.length) return 0;
    const blockBytes = type === BLOCK_COMPRESSED ? compressedBytes(bytes, body, at, sequences) : header >>> 3;
    if (blockBytes < 0 || blockBytes > left) return 0;
    left -= blockBytes;
    isLast = (header & 1) !== 0;
  }
  return at;
}

/** How long the content of a compressed block is, or −1 ('Compressed Blocks'). */
function compressedBytes(bytes: Uint8Array, begin: number, end: number, sequences: SequenceLengths): number {
  const [b0 = 0, b1 = 0, b2 = 0, b3 = 0, b4 = 0] = bytes.subarray(begin, begin + 5);
  const [type, format] = [b0 & 3, (b0 >>> 2) & 3];
  const [headerBytes, literalsBytes, storedBytes] =
    type <= LITERALS_REPEATED
      ? plainLiterals(type, format, b0, b1, b2)
      : format < 2
        ? [3, (b0 >>> 4) | ((b1 & 63) << 4), (b1 >>> 6) | (b2 << 2)]
        : format === 2
          ? [4, (b0 >>> 4) | (b1 << 4) | ((b2 & 3) << 12), (b2 >>> 2) | (b3 << 6)]
          : [5, (b0 >>> 4) | (b1 << 4) | ((b2 & 63) << 12), (b2 >>> 6) | (b3 << 2) | (b4 << 10)];
  const at = begin + headerBytes + storedBytes;
  if (at >= end || literalsBytes > BLOCK_BYTES_MAX) return -1;
  const matchBytes = sequences.matchBytes(bytes, at, end, literalsBytes, BLOCK_BYTES_MAX - literalsBytes);
  return matchBytes < 0 ? -1 : literalsBytes + matchBytes;
}

/** Of literals that are not compressed, or one repeated: how long their header is, they are, and what is stored of them. */
function plainLiterals(
  type: number,
  format: number,
  b0: number,
  b1: number,
  b2: number,
): readonly [headerBytes: number, literalsBytes: number, storedBytes: number] {
  const isShort = (format & 1) === 0;
  const literalsBytes = isShort ? b0 >>> 3 : (b0 >>> 4) | (b1 << 4) | (format === 3 ? b2 << 12 : 0);
  return [isShort ? 1 : format === 1 ? 2 : 3, literalsBytes, type === LITERALS_REPEATED ? 1 : literalsBytes];
}
