import { truncateSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { openImage } from '#tsnbd/image/open-image.js';
import { useTemporaryFolder } from '../temporary-folder.js';
import { type Cluster, type Qcow2Bytes, qcow2Bytes } from './qcow2-bytes.js';

const inFolder = useTemporaryFolder();
const DIRTY = 1n;

function dirty(clusterBits: number): Qcow2Bytes {
  const bytes = new Uint8Array(2 ** clusterBits).fill(7);
  const clusters = new Map<number, Cluster>([[0, { kind: 'data', bytes }]]);
  return qcow2Bytes({ clusterBits, sizeBytes: 1 << 21, incompatible: DIRTY, clusters });
}

function open(image: Qcow2Bytes, fileBytes = image.bytes.length): void {
  const path = inFolder('dirty.qcow2');
  writeFileSync(path, image.bytes);
  truncateSync(path, fileBytes);
  openImage(path, { readOnly: false }).close();
}

describe('the refcounts of a dirty image are not rebuilt, and it is refused at once,', () => {
  it('where it is mostly a hole', () => {
    expect(() => open(dirty(9), 2 ** 29)).not.toThrow();
    expect(() => open(dirty(9), 2 ** 33 + 512)).toThrow(
      'to make its refcounts right would take too long; repair it with',
    );
    expect(() => open(dirty(9), 2 ** 40)).toThrow('would take too long');
  });

  it('where its L1 table points to one L2 table again and again', () => {
    const image = dirty(21);
    const entry = image.bytes.readBigUInt64BE(image.l1At);
    image.bytes.writeUInt32BE(8_193, 36);
    for (let index = 0; index < 8_193; index += 1) image.bytes.writeBigUInt64BE(entry, image.l1At + 8 * index);
    expect(() => open(image)).toThrow('would take too long');
  });

  it('where its snapshots have L1 tables behind its end', () => {
    const image = dirty(16);
    const table = Buffer.alloc(65_536);
    table.writeBigUInt64BE(2n ** 40n, 0);
    table.writeUInt32BE(1_000, 8);
    image.bytes.writeUInt32BE(1, 60);
    image.bytes.writeBigUInt64BE(BigInt(image.bytes.length), 64);
    expect(() => open({ ...image, bytes: Buffer.concat([image.bytes, table]) })).toThrow('repair it with');
  });
});
