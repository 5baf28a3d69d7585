// What numbered-writer.js writes, known also to the test that looks for it after a power cut. A lane is one stream of rounds
// over a few blocks of its own; each block it writes is filled with records of the lane, the block and the round's number.
export const BLOCK_BYTES = 4096;
export const LANE_BLOCKS = 32;
const RECORD_BYTES = 16;
const MAGIC = 0x6e756d62;
const ROUND_BLOCKS_MAX = 4;

/**
 * The blocks that a lane writes in a round: at most ROUND_BLOCKS_MAX, spread over all that it has.
 * @param {number} lane
 * @param {number} round
 */
export function roundBlocks(lane, round) {
  const count = 1 + ((lane + round) % ROUND_BLOCKS_MAX);
  return Array.from({ length: count }, (_, index) => (round * 7 + index * 11 + lane) % LANE_BLOCKS);
}

/**
 * @param {Buffer} target of BLOCK_BYTES
 * @param {number} lane
 * @param {number} block
 * @param {number} round
 */
export function fillBlock(target, lane, block, round) {
  for (let at = 0; at < BLOCK_BYTES; at += RECORD_BYTES) {
    for (const [index, value] of [MAGIC, lane, block, round].entries()) target.writeUInt32LE(value, at + index * 4);
  }
}

/**
 * The round that wrote a block, 0 if none did, or -1 if what it holds is no whole block of that lane.
 * @param {Uint8Array} bytes
 * @param {number} lane
 * @param {number} block
 */
export function roundOf(bytes, lane, block) {
  const found = Buffer.from(bytes.buffer, bytes.byteOffset, BLOCK_BYTES);
  const round = found.readUInt32LE(12);
  const expected = Buffer.alloc(BLOCK_BYTES);
  if (round !== 0) fillBlock(expected, lane, block, round);
  return found.equals(expected) ? round : -1;
}

/**
 * What is missing of a lane whose rounds up to `acknowledged` were said to be durable, a sentence for each block.
 * @param {Buffer} bytes of the lane, as they were found; they may end early
 * @param {number} lane
 * @param {number} acknowledged
 */
export function lostBlocks(bytes, lane, acknowledged) {
  const lost = [];
  const newest = new Array(LANE_BLOCKS).fill(0);
  for (let round = 1; round <= acknowledged; round += 1) {
    for (const block of roundBlocks(lane, round)) newest[block] = round;
  }
  for (const [block, round] of newest.entries()) {
    const piece = Buffer.alloc(BLOCK_BYTES);
    piece.set(bytes.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES));
    const found = roundOf(piece, lane, block);
    // A later round may have begun, and then it may be there too: its blocks as a whole or not at all.
    const later = found > acknowledged && roundBlocks(lane, found).includes(block);
    if (found !== round && !later) lost.push(`block ${block} of lane ${lane}: round ${found}, not ${round}`);
  }
  return lost;
}
