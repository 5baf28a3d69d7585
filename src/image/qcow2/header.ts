import { CursorError, ReadCursor } from '../../base/cursor.js';
import { ImageError } from '../errors.js';
import { nameFromBytes } from '../file-name.js';
import type { OpenFile } from '../open-file.js';
import {
  AUTOCLEAR_RAW_DATA,
  INCOMPATIBLE_COMPRESSION,
  INCOMPATIBLE_CORRUPT,
  INCOMPATIBLE_DATA_FILE,
  INCOMPATIBLE_DIRTY,
  INCOMPATIBLE_EXTENDED_L2,
  unknownFeatures,
} from './features.js';
import { type HeaderExtensions, parseExtensions } from './header-extensions.js';
import { readAt } from './read-at.js';

/** QEMU's limits, which are ours (block/qcow2.h). */
export const CLUSTER_BITS_MIN = 9;
export const CLUSTER_BITS_MAX = 21;
export const EXTENDED_CLUSTER_BITS_MIN = 14;
export const L1_BYTES_MAX = 32 << 20;
export const REFCOUNT_TABLE_BYTES_MAX = 8 << 20;
const SNAPSHOTS_MAX = 65_536;
export const BACKING_NAME_BYTES_MAX = 1_023;
export const REFCOUNT_ORDER_MAX = 6;

export const MAGIC = 0x514649fb;
export const V2_BYTES = 72;
export const V3_BYTES_MIN = 104;
const COMPRESSION_AT = 104;
export const V2_REFCOUNT_ORDER = 4;
export const V2_REFCOUNT_BITS = 2 ** V2_REFCOUNT_ORDER;
const ENTRY_BYTES = 8;
export const SECTOR_BYTES = 512;

/** A disk's size: QEMU leaves out a part of a sector at its end (block/qcow2.c: qcow2_do_open). */
export function inWholeSectors(sizeBytes: number): number {
  return Math.floor(sizeBytes / SECTOR_BYTES) * SECTOR_BYTES;
}

export const COMPRESSIONS = ['zlib', 'zstd'] as const;
const ENCRYPTIONS = ['none', 'AES', 'LUKS'];

export type Compression = (typeof COMPRESSIONS)[number];

/** A header that was checked: every offset is a whole number of clusters below 2^53, every table within its limit. */
export interface Header extends HeaderExtensions {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  /** Of the disk; in whole sectors. */
  readonly sizeBytes: number;
  readonly l1Entries: number;
  readonly l1OffsetBytes: number;
  readonly refcountTableOffsetBytes: number;
  readonly refcountTableClusters: number;
  /** Width of a refcount: 2^refcountOrder bits. */
  readonly refcountOrder: number;
  readonly snapshots: number;
  readonly snapshotsOffsetBytes: number;
  readonly headerBytes: number;
  readonly incompatible: bigint;
  readonly compatible: bigint;
  readonly autoclear: bigint;
  readonly compression: Compression;
  readonly extendedL2: boolean;
  readonly hasDataFile: boolean;
  readonly rawDataFile: boolean;
  readonly isDirty: boolean;
  readonly isCorrupt: boolean;
  /** As nameFromBytes has it. */
  readonly backingName: string | undefined;
}

/** How much of a file `parseHeader` wants to see, at most: the largest cluster. */
const HEADER_BYTES_MAX = 2 ** CLUSTER_BITS_MAX;

/** Reads and checks the header of a file. @throws ImageError as parseHeader does */
export function readHeader(path: string, { fd, fileBytes }: OpenFile): Header {
  return parseHeader(path, readAt(path, fd, 0, Math.min(HEADER_BYTES_MAX, fileBytes)));
}

/**
 * Checks the header in the first bytes of a file (HEADER_BYTES_MAX, or all of it where that is less).
 *
 * @throws ImageError 'damaged' for what no program writes, 'unsupported' for what we cannot do
 */
export function parseHeader(path: string, head: Uint8Array): Header {
  try {
    return new HeaderParser(path, head).parse();
  } catch (error) {
    if (!(error instanceof CursorError)) throw error;
    throw new ImageError('damaged', `${path} is a damaged qcow2 image: it ends within its header`, { cause: error });
  }
}

class HeaderParser {
  readonly #path: string;
  readonly #head: Uint8Array;

  constructor(path: string, head: Uint8Array) {
    this.#path = path;
    this.#head = head;
  }

  parse(): Header {
    const cursor = new ReadCursor(this.#head);
    this.#check(cursor.u32be() === MAGIC, 'it does not begin like one');
    const version = this.#version(cursor.u32be());
    const backingOffset = cursor.u64be();
    const backingBytes = cursor.u32be();
    const clusterBits = cursor.u32be();
    this.#check(
      clusterBits >= CLUSTER_BITS_MIN && clusterBits <= CLUSTER_BITS_MAX,
      `its clusters have 2^${clusterBits} bytes`,
    );
    const size = cursor.u64be();
    const encryption = cursor.u32be();
    if (encryption !== 0) throw this.#unsupported(`is encrypted (${ENCRYPTIONS[encryption] ?? encryption})`);
    const l1Entries = cursor.u32be();
    const l1Offset = cursor.u64be();
    const refcountTableOffset = cursor.u64be();
    const refcountTableClusters = cursor.u32be();
    const snapshots = cursor.u32be();
    const snapshotsOffset = cursor.u64be();
    const fields = this.#version3(version, cursor);
    const clusterBytes = 2 ** clusterBits;
    this.#check(fields.headerBytes <= clusterBytes, 'its header is longer than a cluster');
    const extensions = this.#extensions(fields.headerBytes, clusterBytes, backingOffset);
    this.#refuseUnknown(fields.incompatible, extensions);
    const offset = (value: bigint, what: string) => this.#offset(value, clusterBytes, what);
    this.#check(l1Entries * ENTRY_BYTES <= L1_BYTES_MAX, 'its L1 table is too large');
    const tableBytes = refcountTableClusters * clusterBytes;
    this.#check(tableBytes <= REFCOUNT_TABLE_BYTES_MAX, 'its refcount table is too large');
    this.#check(refcountTableClusters > 0, 'it has no refcount table');
    this.#check(snapshots <= SNAPSHOTS_MAX, `it has ${snapshots} snapshots`);
    const header = {
      ...extensions,
      ...fields,
      version,
      clusterBits,
      sizeBytes: inWholeSectors(this.#size(size)),
      l1Entries,
      l1OffsetBytes: offset(l1Offset, 'L1 table'),
      refcountTableOffsetBytes: offset(refcountTableOffset, 'refcount table'),
      refcountTableClusters,
      snapshots,
      snapshotsOffsetBytes: offset(snapshots === 0 ? 0n : snapshotsOffset, 'snapshot table'),
      ...this.#features(version, fields.incompatible, fields.autoclear, clusterBits),
      compression: this.#compression(fields.incompatible, fields.headerBytes),
      backingName: this.#backingName(backingOffset, backingBytes, clusterBytes),
    };
    const l2Bytes = (clusterBytes / ENTRY_BYTES / (header.extendedL2 ? 2 : 1)) * clusterBytes;
    this.#check(l1Entries >= Math.ceil(Number(size) / l2Bytes), 'its L1 table is too small for its size');
    this.#check(!header.rawDataFile || header.backingName === undefined, 'it has a raw data file and a backing file');
    return header;
  }

  #version(version: number): 2 | 3 {
    if (version === 2 || version === 3) return version;
    throw this.#unsupported(`is of version ${version}`);
  }

  #version3(version: 2 | 3, cursor: ReadCursor) {
    if (version === 2) {
      const none = { incompatible: 0n, compatible: 0n, autoclear: 0n };
      return { ...none, refcountOrder: V2_REFCOUNT_ORDER, headerBytes: V2_BYTES };
    }
    const incompatible = cursor.u64be();
    const compatible = cursor.u64be();
    const autoclear = cursor.u64be();
    const refcountOrder = cursor.u32be();
    const headerBytes = cursor.u32be();
    this.#check(refcountOrder <= REFCOUNT_ORDER_MAX, `its refcounts have 2^${refcountOrder} bits`);
    this.#check(headerBytes >= V3_BYTES_MIN && headerBytes % 8 === 0, `its header has ${headerBytes} bytes`);
    return { incompatible, compatible, autoclear, refcountOrder, headerBytes };
  }

  #features(version: 2 | 3, incompatible: bigint, autoclear: bigint, clusterBits: number) {
    const extendedL2 = (incompatible & INCOMPATIBLE_EXTENDED_L2) !== 0n;
    this.#check(!extendedL2 || clusterBits >= EXTENDED_CLUSTER_BITS_MIN, 'its clusters are too small for subclusters');
    const hasDataFile = (incompatible & INCOMPATIBLE_DATA_FILE) !== 0n;
    return {
      extendedL2,
      hasDataFile,
      rawDataFile: version === 3 && hasDataFile && (autoclear & AUTOCLEAR_RAW_DATA) !== 0n,
      isDirty: (incompatible & INCOMPATIBLE_DIRTY) !== 0n,
      isCorrupt: (incompatible & INCOMPATIBLE_CORRUPT) !== 0n,
    };
  }

  #extensions(headerBytes: number, clusterBytes: number, backingOffset: bigint): HeaderExtensions {
    const end = backingOffset > headerBytes && backingOffset < clusterBytes ? Number(backingOffset) : clusterBytes;
    const extensions = parseExtensions(this.#head.subarray(headerBytes, end));
    if (typeof extensions === 'string') throw this.#damaged(extensions);
    return extensions;
  }

  #refuseUnknown(incompatible: bigint, { featureNames }: HeaderExtensions): void {
    const unknown = unknownFeatures(incompatible, featureNames);
    if (unknown.length > 0) throw this.#unsupported(`has features that are not known: ${unknown.join(', ')}`);
  }

  #compression(incompatible: bigint, headerBytes: number): Compression {
    const number = headerBytes > COMPRESSION_AT ? (this.#head[COMPRESSION_AT] ?? 0) : 0;
    const isFlagged = (incompatible & INCOMPATIBLE_COMPRESSION) !== 0n;
    this.#check(isFlagged === (number !== 0), 'its compression type and its features contradict each other');
    const compression = COMPRESSIONS[number];
    if (compression === undefined) throw this.#unsupported(`is compressed in a way that is not known (${number})`);
    return compression;
  }

  #backingName(offset: bigint, bytes: number, clusterBytes: number): string | undefined {
    if (offset === 0n || bytes === 0) return undefined;
    const fits = bytes <= BACKING_NAME_BYTES_MAX && offset + BigInt(bytes) <= BigInt(clusterBytes);
    this.#check(fits, 'the name of its backing file does not fit into the header');
    const name = this.#head.subarray(Number(offset), Number(offset) + bytes);
    this.#check(name.length === bytes, 'it ends within the name of its backing file');
    this.#check(name.indexOf(0) < 0, 'the name of its backing file has a zero byte in it');
    return nameFromBytes(name);
  }

  #offset(value: bigint, clusterBytes: number, what: string): number {
    const isFine = value <= BigInt(Number.MAX_SAFE_INTEGER - L1_BYTES_MAX) && value % BigInt(clusterBytes) === 0n;
    this.#check(isFine, `the offset of its ${what} (${value}) is none`);
    return Number(value);
  }

  #size(value: bigint): number {
    this.#check(value <= BigInt(Number.MAX_SAFE_INTEGER - SECTOR_BYTES), `its disk has ${value} bytes`);
    return Number(value);
  }

  #check(isFine: boolean, whatIsWrong: string): void {
    if (!isFine) throw this.#damaged(whatIsWrong);
  }

  #damaged(what: string): ImageError {
    return new ImageError('damaged', `${this.#path} is a damaged qcow2 image: ${what}`);
  }

  #unsupported(what: string): ImageError {
    return new ImageError('unsupported', `${this.#path} is a qcow2 image that cannot be opened: it ${what}`);
  }
}
