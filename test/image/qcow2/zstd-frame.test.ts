import { describe, expect, it } from 'vitest';
import { decompressCluster } from '#tsnbd/image/qcow2/decompress.js';
import { boundedFrame } from '#tsnbd/image/qcow2/zstd-frame.js';

const RAW = 0;
const REPEATED = 1;
const RESERVED = 3;
const MAGIC = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
/** 64 KiB of content, said in 4 bytes. */
const HEADER = Buffer.concat([MAGIC, Buffer.from([0xa0, 0, 0, 1, 0])]);
const CLUSTER_BYTES = 65_536;

/** A block's header says its size: of its bytes, or of what a byte is repeated to. */
function block(type: number, sizeBytes: number, isLast: boolean, bytes = Buffer.of(7)): Buffer {
  const header = (sizeBytes << 3) | (type << 1) | (isLast ? 1 : 0);
  return Buffer.concat([Buffer.of(header & 255, (header >>> 8) & 255, header >>> 16), bytes]);
}

const raw = (bytes: Buffer<ArrayBuffer>, isLast = false) => block(RAW, bytes.length, isLast, bytes);
const half = block(REPEATED, CLUSTER_BYTES / 2, false);
const rest = block(REPEATED, CLUSTER_BYTES / 2, true);
const whole = Buffer.concat([HEADER, half, rest]);

/** A cluster in `count` blocks of a byte, or none, and a last one of the rest. */
function inBlocks(count: number, blockBytes: 0 | 1): Buffer {
  const last = block(REPEATED, CLUSTER_BYTES - (count - 1) * blockBytes, true);
  return Buffer.concat([HEADER, ...new Array(count - 1).fill(raw(Buffer.alloc(blockBytes, 7))), last]);
}

function decompressed(frame: Uint8Array): Uint8Array | undefined {
  return decompressCluster('zstd', frame, CLUSTER_BYTES);
}

describe('a zstd frame', () => {
  it('is found with a header of any kind, a checksum or none, and whatever lies behind it', () => {
    const blocks = Buffer.concat([half, rest]);
    for (const header of ['a0 00 00 01 00', '60 00 ff', '00 30', '80 30 00 00 01 00', 'e0 00 00 01 00 00 00 00 00']) {
      const withHeader = Buffer.concat([MAGIC, Buffer.from(header.replaceAll(' ', ''), 'hex'), blocks]);
      for (const behind of [0, 1, 511]) {
        const cluster = decompressed(Buffer.concat([withHeader, Buffer.alloc(behind, 0xff)]));
        expect(Buffer.alloc(CLUSTER_BYTES, 7).equals(cluster ?? Buffer.alloc(0))).toBe(true);
      }
    }
    const checked = Buffer.from(whole);
    checked[4] = 0xa4;
    expect(boundedFrame(checked, CLUSTER_BYTES)).toBeUndefined();
    expect(boundedFrame(Buffer.concat([checked, Buffer.alloc(4)]), CLUSTER_BYTES)).toEqual(
      new Uint8Array(Buffer.concat([HEADER, half, rest])),
    );
  });

  it('says our size, whatever it claims', () => {
    const claims = Buffer.concat([MAGIC, Buffer.from('e0ffffffffffffff7f', 'hex'), half, rest]);
    expect(boundedFrame(claims, CLUSTER_BYTES)).toEqual(new Uint8Array(whole));
  });

  it.each(Array.from({ length: whole.length }, (_, length) => length))('is refused cut after %i bytes', (length) => {
    expect(boundedFrame(whole.subarray(0, length), CLUSTER_BYTES)).toBeUndefined();
    expect(decompressed(whole.subarray(0, length))).toBeUndefined();
  });

  it.each([
    ['another magic', Buffer.concat([Buffer.of(0x29), whole.subarray(1)])],
    ['a skippable frame', Buffer.from('502a4d1800000000', 'hex')],
    ['a reserved bit', Buffer.concat([MAGIC, Buffer.of(0xa8), whole.subarray(5)])],
    ['a dictionary', Buffer.concat([MAGIC, Buffer.of(0xa1, 5), whole.subarray(5)])],
    ['a reserved block', Buffer.concat([HEADER, block(RESERVED, 1, true)])],
    ['a block that is longer than what is there', Buffer.concat([HEADER, block(RAW, 200, true)])],
    ['no last block', Buffer.concat([HEADER, half, half])],
    ['zeroes behind its header', Buffer.concat([HEADER, Buffer.alloc(4096)])],
  ])('with %s is refused', (_, frame) => {
    expect(boundedFrame(frame, CLUSTER_BYTES)).toBeUndefined();
  });

  it.each([
    ['less', Buffer.concat([HEADER, half, block(REPEATED, CLUSTER_BYTES / 2 - 1, true)])],
    ['more', Buffer.concat([HEADER, half, block(REPEATED, CLUSTER_BYTES / 2 + 1, true)])],
    ['far less', Buffer.concat([HEADER, raw(Buffer.alloc(0), true)])],
  ])('of %s than a cluster is none', (_, frame) => {
    expect(decompressed(frame)).toBeUndefined();
  });

  it('has as many blocks as any encoder makes, which are of 1 KiB at the least, and some that are empty', () => {
    const smallest = Array.from({ length: 64 }, (_, index) => block(REPEATED, 1024, index === 63));
    expect(decompressed(Buffer.concat([HEADER, ...smallest]))?.length).toBe(CLUSTER_BYTES);
    for (const blockBytes of [0, 1] as const)
      expect(decompressed(inBlocks(100, blockBytes))?.length).toBe(CLUSTER_BYTES);
  });

  it('has no more blocks than that: each takes time, however little is in it', () => {
    for (const blockBytes of [0, 1] as const) {
      expect(boundedFrame(inBlocks(200, blockBytes), CLUSTER_BYTES)).toBeUndefined();
      expect(decompressed(inBlocks(30_000, blockBytes))).toBeUndefined();
    }
  });
});
