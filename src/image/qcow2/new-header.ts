import { WriteCursor } from '../../base/cursor.js';
import { ImageError } from '../errors.js';
import {
  AUTOCLEAR_RAW_DATA,
  COMPATIBLE_LAZY_REFCOUNTS,
  INCOMPATIBLE_COMPRESSION,
  INCOMPATIBLE_DATA_FILE,
  INCOMPATIBLE_EXTENDED_L2,
} from './features.js';
import { BACKING_NAME_BYTES_MAX, MAGIC, V2_BYTES } from './header.js';
import { BACKING_FORMAT, DATA_FILE, END } from './header-extensions.js';
import type { Layout, NewQcow2 } from './new-layout.js';

/** With the compression type, and padded to a multiple of 8. */
const V3_BYTES = 112;
const ALIGNMENT_BYTES = 8;

/**
 * The first cluster of a new image: header, extensions, the backing file's name (qcow2.rst, 'Header').
 *
 * @throws ImageError 'unsupported' where the names do not fit
 */
export function newHeader(path: string, layout: Layout): Uint8Array {
  const { form } = layout;
  const headerBytes = form.version === 2 ? V2_BYTES : V3_BYTES;
  const extensions = extensionsOf(form);
  const name = Buffer.from(form.backing?.name ?? '');
  const nameAt = headerBytes + extensions.length;
  if (nameAt + name.length > form.clusterBytes || name.length > BACKING_NAME_BYTES_MAX) {
    throw new ImageError('unsupported', `${path} cannot name its other files: there is no room for such long names`);
  }
  const cluster = new Uint8Array(form.clusterBytes);
  cluster.set(fieldsOf(layout, name.length === 0 ? 0 : nameAt, name.length));
  cluster.set(extensions, headerBytes);
  cluster.set(name, nameAt);
  return cluster;
}

function fieldsOf(layout: Layout, nameAt: number, nameBytes: number): Uint8Array {
  const { form, sizeBytes, l1Entries, l1From, refcountTableClusters } = layout;
  const { clusterBytes, version, refcountBits } = form;
  const cursor = new WriteCursor(V3_BYTES);
  cursor.u32be(MAGIC).u32be(version).u64be(BigInt(nameAt)).u32be(nameBytes);
  cursor.u32be(Math.log2(clusterBytes)).u64be(BigInt(sizeBytes)).u32be(0);
  cursor.u32be(l1Entries).u64be(BigInt(l1From) * BigInt(clusterBytes));
  cursor.u64be(BigInt(clusterBytes)).u32be(refcountTableClusters);
  cursor.u32be(0).u64be(0n); // no snapshots
  if (version === 2) return cursor.finish();
  const { incompatible, compatible, autoclear } = featuresOf(form);
  cursor.u64be(incompatible).u64be(compatible).u64be(autoclear);
  cursor.u32be(Math.log2(refcountBits)).u32be(V3_BYTES);
  cursor.u64be(form.compression === 'zlib' ? 0n : 1n << 56n);
  return cursor.finish();
}

function featuresOf({ dataFile, compression, extendedL2, lazyRefcounts }: NewQcow2) {
  const bit = (flag: boolean | undefined, value: bigint) => (flag === true ? value : 0n);
  return {
    incompatible:
      bit(dataFile !== undefined, INCOMPATIBLE_DATA_FILE) |
      bit(compression !== 'zlib', INCOMPATIBLE_COMPRESSION) |
      bit(extendedL2, INCOMPATIBLE_EXTENDED_L2),
    compatible: bit(lazyRefcounts, COMPATIBLE_LAZY_REFCOUNTS),
    autoclear: bit(dataFile?.isRaw, AUTOCLEAR_RAW_DATA),
  };
}

function extensionsOf({ backing, dataFile }: NewQcow2): Uint8Array {
  const cursor = new WriteCursor();
  const add = (type: number, text: string | undefined) => {
    if (text === undefined) return;
    const data = Buffer.from(text);
    const padding = -data.length & (ALIGNMENT_BYTES - 1);
    cursor.u32be(type).u32be(data.length).bytes(data).bytes(new Uint8Array(padding));
  };
  add(BACKING_FORMAT, backing?.format);
  add(DATA_FILE, dataFile?.name);
  cursor.u32be(END).u32be(0);
  return cursor.finish();
}
