import { deflateRawSync } from 'node:zlib';

/** What one guest cluster is to be. */
export type Cluster =
  | { readonly kind: 'data' | 'compressed'; readonly bytes: Uint8Array }
  | { readonly kind: 'zero' | 'zero-allocated' }
  /** Bits of its subclusters. */
  | { readonly kind: 'subclusters'; readonly allocated: number; readonly zero: number; readonly bytes: Uint8Array };

export interface Wish {
  readonly version?: 2 | 3;
  readonly clusterBits?: number;
  readonly sizeBytes: number;
  readonly incompatible?: bigint;
  readonly compatible?: bigint;
  readonly autoclear?: bigint;
  readonly headerBytes?: number;
  readonly compressionType?: number;
  readonly extensions?: readonly (readonly [type: number, data: Uint8Array])[];
  readonly backing?: string;
  readonly clusters?: ReadonlyMap<number, Cluster>;
}

/** Where things stand in an image that was made, for whoever wants to break them. */
export interface Qcow2Bytes {
  readonly bytes: Buffer;
  readonly l1At: number;
  readonly refcountTableAt: number;
  /** Of each L2 table, by its L1 index. */
  readonly l2At: ReadonlyMap<number, number>;
  readonly extensionsAt: number;
}

export const BACKING_FORMAT = 0xe2792aca;
export const BITMAPS = 0x23852875;
export const FEATURE_NAMES = 0x6803f857;
export const DATA_FILE_NAME = 0x44415441;
const EXTENDED_L2 = 1n << 4n;
const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;

/** A whole image, by the specification's own numbers and nothing of ours; every refcount (16 bits) is right. */
export function qcow2Bytes(wish: Wish): Qcow2Bytes {
  const { version = 3, clusterBits = 16, sizeBytes, incompatible = 0n, clusters = new Map<number, Cluster>() } = wish;
  const clusterBytes = 2 ** clusterBits;
  const extended = (incompatible & EXTENDED_L2) !== 0n;
  const l2Entries = clusterBytes / (extended ? 16 : 8);
  const l1Entries = Math.max(1, Math.ceil(sizeBytes / (l2Entries * clusterBytes)));
  const pieces: Buffer[] = [];
  const allocate = (bytes: number): number => {
    const at = pieces.reduce((sum, piece) => sum + piece.length, 0);
    pieces.push(Buffer.alloc(Math.ceil(bytes / clusterBytes) * clusterBytes));
    return at;
  };
  const piece = (): Buffer => pieces.at(-1) ?? Buffer.alloc(0);
  allocate(clusterBytes);
  const header = piece();
  const l1At = allocate(l1Entries * 8);
  const l1 = piece();
  const l2At = new Map<number, number>();
  const l2s = new Map<number, Buffer>();
  for (const [guest, cluster] of clusters) {
    const l1Index = Math.floor(guest / l2Entries);
    if (!l2s.has(l1Index)) {
      const at = allocate(clusterBytes);
      l2At.set(l1Index, at);
      l2s.set(l1Index, piece());
      l1.writeBigUInt64BE(BigInt(at) | COPIED, l1Index * 8);
    }
    const l2 = l2s.get(l1Index) ?? Buffer.alloc(0);
    const at = (guest % l2Entries) * (extended ? 16 : 8);
    const data = 'bytes' in cluster ? cluster.bytes : new Uint8Array(0);
    const stored = cluster.kind === 'compressed' ? deflateRawSync(data, { windowBits: 12 }) : data;
    const host = cluster.kind === 'zero' ? 0 : allocate(clusterBytes);
    if (cluster.kind !== 'zero') piece().set(stored);
    l2.writeBigUInt64BE(entryOf(cluster.kind, host, clusterBits, stored.length), at);
    if (cluster.kind === 'subclusters') {
      l2.writeUInt32BE(cluster.zero, at + 8);
      l2.writeUInt32BE(cluster.allocated, at + 12);
    } else if (extended && cluster.kind === 'data') l2.writeUInt32BE(0xffffffff, at + 12);
    else if (extended && cluster.kind !== 'compressed') {
      l2.writeBigUInt64BE(l2.readBigUInt64BE(at) & ~1n, at);
      l2.writeUInt32BE(0xffffffff, at + 8);
    }
  }
  const refcountTableAt = allocate(clusterBytes);
  const table = piece();
  writeRefcounts(table, allocate, piece, clusterBytes);
  const extensionsAt = writeHeader(header, wish, version, { clusterBits, l1Entries, l1At, refcountTableAt });
  return { bytes: Buffer.concat(pieces), l1At, refcountTableAt, l2At, extensionsAt };
}

/** A refcount of 1 for each cluster, those of the refcount blocks too. */
function writeRefcounts(
  table: Buffer,
  allocate: (bytes: number) => number,
  piece: () => Buffer,
  clusterBytes: number,
): void {
  const perBlock = clusterBytes / 2;
  const blocks: Buffer[] = [];
  for (let covered = 0; ; covered += perBlock) {
    const at = allocate(clusterBytes);
    blocks.push(piece());
    table.writeBigUInt64BE(BigInt(at), (blocks.length - 1) * 8);
    const used = at / clusterBytes + 1;
    if (used > covered + perBlock) continue;
    for (let cluster = 0; cluster < used; cluster += 1) {
      blocks[Math.floor(cluster / perBlock)]?.writeUInt16BE(1, (cluster % perBlock) * 2);
    }
    return;
  }
}

function entryOf(kind: Cluster['kind'], host: number, clusterBits: number, storedBytes: number): bigint {
  if (kind === 'zero') return 1n;
  if (kind === 'zero-allocated') return COPIED | BigInt(host) | 1n;
  if (kind !== 'compressed') return COPIED | BigInt(host);
  const sectors = Math.ceil(storedBytes / 512) - 1;
  return COMPRESSED | (BigInt(sectors) << BigInt(62 - (clusterBits - 8))) | BigInt(host);
}

interface Places {
  readonly clusterBits: number;
  readonly l1Entries: number;
  readonly l1At: number;
  readonly refcountTableAt: number;
}

/** Answers where the extensions begin. */
function writeHeader(header: Buffer, wish: Wish, version: 2 | 3, places: Places): number {
  const headerBytes = version === 2 ? 72 : (wish.headerBytes ?? 112);
  header.write('QFI\xfb', 0, 'latin1');
  header.writeUInt32BE(version, 4);
  header.writeUInt32BE(places.clusterBits, 20);
  header.writeBigUInt64BE(BigInt(wish.sizeBytes), 24);
  header.writeUInt32BE(places.l1Entries, 36);
  header.writeBigUInt64BE(BigInt(places.l1At), 40);
  header.writeBigUInt64BE(BigInt(places.refcountTableAt), 48);
  header.writeUInt32BE(1, 56);
  if (version === 3) {
    header.writeBigUInt64BE(wish.incompatible ?? 0n, 72);
    header.writeBigUInt64BE(wish.compatible ?? 0n, 80);
    header.writeBigUInt64BE(wish.autoclear ?? 0n, 88);
    header.writeUInt32BE(4, 96);
    header.writeUInt32BE(headerBytes, 100);
    if (headerBytes > 104) header.writeUInt8(wish.compressionType ?? 0, 104);
  }
  let at = headerBytes;
  for (const [type, data] of wish.extensions ?? []) {
    header.writeUInt32BE(type, at);
    header.writeUInt32BE(data.length, at + 4);
    header.set(data, at + 8);
    at += 8 + Math.ceil(data.length / 8) * 8;
  }
  if (wish.backing !== undefined) {
    header.writeBigUInt64BE(BigInt(at + 8), 8);
    header.writeUInt32BE(header.write(wish.backing, at + 8), 16);
  }
  return headerBytes;
}
