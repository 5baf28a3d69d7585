import { expect, it } from 'vitest';
import { decompressCluster } from '#tsnbd/image/qcow2/decompress.js';
import { boundedFrame } from '#tsnbd/image/qcow2/zstd-frame.js';

const HEADER = Buffer.from('28b52ffda000000100', 'hex');
const CLUSTER_BYTES = 65_536;
const HALF = CLUSTER_BYTES / 2;
/** Of the modes of the three tables: a symbol each, or those of the block before. */
const SYMBOLS = 0x54;
const REPEATED = 0xfc;
/** The rest of a cluster, one byte repeated. */
const REST = Buffer.from([3 | ((HALF << 3) & 255), (HALF >>> 5) & 255, HALF >>> 13, 7]);

/** What `zstd -19 --zstd=wlog=10` makes of `pattern(2048)`: two blocks, of which each brings tables or keeps some. */
const MADE_BY_ZSTD =
  'KLUv/QAADAcAksYMCeDpW24pdwKoKoO6fwjU2uGOYY1wOJS4X0DD/ShKlAixDrn/tbHXEdBQ1AiIa9shJCTWUaCRGkstLXMghBAnTd3xIvad6re0' +
  'm5uoN5Owkmd3kBctB4ixvsu1jM8rqbTvR4cDQHKVKj3BVmwPpDdXoIybxPWAywY3u9UOIjuTAZOFCjXa6K1HSIctKWs8MKiw1RvPQi6aYzGl' +
  'uSejjVfX8RsDiCfabTladwK6LTmu0kjJZ363duHg15BW1wozIYvjohQiNck2uVQGzo4nDpRuHR1UGLEBPQbqvqC36gV/xQUAs4ECeq0o+60h' +
  'RVE/FVm40OURIBTPIsOISFAlQQVJCgrpQQrLjokez+dTjQnnTdPHN+bPNGgWrT1JwxNrxPscuTMWdVVf2EQSbpNq6PrVEmilKcS3EXT4Iq7x' +
  '/SlCj0zgcYYl1BXXtr0IL4BHQ9KwybSANK03VeN7tmOEnNkxW83ESYqHTxjACcED0za1O9iUqrChr9/yBc15eWt52sxwEGqwz6YgpE2mBkLK' +
  'zLd4+mxpEfieh1g0Fg==';

function pattern(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = 0, seed = 1; at < length; ) {
    seed = (seed * 48_271) % 2_147_483_647;
    const any = seed >>> 8;
    for (let left = 3 + (any % 29); left > 0 && at < length; left -= 1, at += 1) {
      const place = 3 + (any % 29) - left;
      bytes[at] = at >= 64 && any % 3 !== 0 ? (bytes[at - 1 - (any % 63)] ?? 0) : 97 + ((any >> place) % 9);
    }
  }
  return bytes;
}

/** A compressed block of one literal, 7, and `sequences`: their count, modes, tables and bits. */
function block(...sequences: readonly number[]): Buffer {
  const body = Buffer.from([0x08, 7, ...sequences]);
  const header = (body.length << 3) | (2 << 1);
  return Buffer.concat([Buffer.from([header & 255, header >>> 8, 0]), body]);
}

/** The literal, and a match of 32,767 bytes one byte back: the codes 1, 2 and 50, and behind these 0 and 16,380 in 16 bits. */
const BITS = [0xfc, 0x3f, 0x01];
const WHOLE = block(1, SYMBOLS, 1, 2, 50, ...BITS);

function decompressed(...blocks: readonly Buffer[]): Uint8Array | undefined {
  return decompressCluster('zstd', Buffer.concat([HEADER, ...blocks]), CLUSTER_BYTES);
}

function isWhole(cluster: Uint8Array | undefined): boolean {
  return Buffer.alloc(CLUSTER_BYTES, 7).equals(cluster ?? Buffer.alloc(0));
}

it('the content of what an encoder made is as long as it was', () => {
  const frame = Buffer.from(MADE_BY_ZSTD, 'base64');
  expect(decompressCluster('zstd', frame, 2_048)).toEqual(pattern(2_048));
  expect(boundedFrame(frame, 2_047)).toBeUndefined();
  for (let length = 0; length < frame.length; length += 1) {
    expect(boundedFrame(frame.subarray(0, length), 2_048)).toBeUndefined();
  }
});

it('a block may be a literal and a long match, and the next may keep its tables', () => {
  expect(isWhole(decompressed(WHOLE, REST))).toBe(true);
  const last = block(1, REPEATED, ...BITS);
  last.writeUInt8(last.readUInt8(0) | 1);
  expect(isWhole(decompressed(WHOLE, last))).toBe(true);
});

it.each<[string, Buffer]>([
  ['more matches than the cluster has room for', block(3, SYMBOLS, 0, 2, 50, 0xfc, 0x3f, 0xfc, 0x3f, 0xfc, 0x3f, 0x01)],
  ['100,000 matches of 64 KiB', block(255, 255, 255, SYMBOLS, 0, 0, 52, 1)],
  ['matches longer than a block', block(1, SYMBOLS, 1, 2, 52, 0xff, 0xff, 0x04)],
  ['more literals than there are', block(1, SYMBOLS, 2, 2, 50, ...BITS)],
  ['fewer bits than its codes take', block(1, SYMBOLS, 1, 2, 50, 0xfc, 0x01)],
  ['no bits', block(1, SYMBOLS, 1, 2, 50)],
  ['no end of its bits', block(1, SYMBOLS, 1, 2, 50, 0xfc, 0x3f, 0)],
  ['a code that is none', block(1, SYMBOLS, 1, 2, 53, ...BITS)],
  ['reserved modes', block(1, SYMBOLS | 1, 1, 2, 50, ...BITS)],
  ['tables of a block before, which is none', block(1, REPEATED, ...BITS)],
  ['a table that is too fine', block(1, 0x94, 0x0f, 0xff, 0xff, 0xff, 2, 50, ...BITS)],
  ['a table that does not end', block(1, 0x94, 0x00, 2, 50)],
  ['no sequences at all', Buffer.from([0x14, 0, 0, 0x08, 7])],
])('a block with %s is refused', (_, hostile) => {
  expect(boundedFrame(Buffer.concat([HEADER, hostile, REST]), CLUSTER_BYTES)).toBeUndefined();
  expect(decompressed(hostile, REST)).toBeUndefined();
});

it('with any bit of it changed a frame is a whole cluster or none', () => {
  const frame = Buffer.from(MADE_BY_ZSTD, 'base64');
  for (let at = 0; at < frame.length * 8; at += 1) {
    const changed = Buffer.from(frame);
    changed.writeUInt8(changed.readUInt8(at >>> 3) ^ (1 << (at & 7)), at >>> 3);
    const cluster = decompressCluster('zstd', changed, 2_048);
    expect(cluster?.length ?? 2_048).toBe(2_048);
  }
});
