import { CursorError, ReadCursor } from '../../base/cursor.js';
import { nameFromBytes, printable } from '../file-name.js';
import type { FeatureName } from './features.js';

export const END = 0;
export const BACKING_FORMAT = 0xe2792aca;
const FEATURE_NAMES = 0x6803f857;
const BITMAPS = 0x23852875;
export const DATA_FILE = 0x44415441;

const ALIGNMENT_BYTES = 8;
const FEATURE_ROW_BYTES = 48;
const FEATURE_NAME_BYTES = 46;
const FEATURE_KINDS = ['incompatible', 'compatible', 'autoclear'] as const;
const BITMAPS_BYTES = 24;

/** Where the bitmaps of an image are listed. */
export interface BitmapsPlace {
  readonly count: number;
  readonly directoryBytes: bigint;
  readonly directoryOffsetBytes: bigint;
}

/** What stands between the header and the backing file's name (qcow2.rst, 'Header extensions'). */
export interface HeaderExtensions {
  readonly backingFormat: string | undefined;
  /** As nameFromBytes has it. */
  readonly dataFileName: string | undefined;
  readonly featureNames: readonly FeatureName[];
  readonly bitmaps: BitmapsPlace | undefined;
}

/**
 * Reads the extensions at the start of `bytes`, which end where the header's cluster or the backing file's name begins.
 * Those that nobody knows are skipped. Answers a string, what is wrong, where they do not fit.
 */
export function parseExtensions(bytes: Uint8Array): HeaderExtensions | string {
  let backingFormat: string | undefined;
  let dataFileName: string | undefined;
  let featureNames: readonly FeatureName[] = [];
  let bitmaps: BitmapsPlace | undefined;
  const cursor = new ReadCursor(bytes);
  try {
    while (cursor.remainingBytes >= ALIGNMENT_BYTES) {
      const type = cursor.u32be();
      const length = cursor.u32be();
      if (type === END) break;
      const data = cursor.bytes(length);
      cursor.bytes(Math.min(-length & (ALIGNMENT_BYTES - 1), cursor.remainingBytes));
      if (type === BACKING_FORMAT) backingFormat = text(data);
      else if (type === DATA_FILE) dataFileName = fileName(data);
      else if (type === FEATURE_NAMES) featureNames = parseFeatureNames(data);
      else if (type === BITMAPS) {
        if (length !== BITMAPS_BYTES) return `its bitmaps extension has ${length} bytes, not ${BITMAPS_BYTES}`;
        bitmaps = parseBitmapsPlace(new ReadCursor(data));
      }
    }
  } catch (error) {
    if (error instanceof CursorError) return 'a header extension is longer than the room for it';
    throw error;
  }
  return { backingFormat, dataFileName, featureNames, bitmaps };
}

function parseFeatureNames(data: Uint8Array): readonly FeatureName[] {
  const rows = Math.floor(data.length / FEATURE_ROW_BYTES);
  return Array.from({ length: rows }, (_, row) => {
    const at = row * FEATURE_ROW_BYTES;
    const name = text(data.subarray(at + 2, at + 2 + FEATURE_NAME_BYTES));
    return { kind: FEATURE_KINDS[data[at] ?? -1] ?? 'other', bit: data[at + 1] ?? 0, name };
  });
}

function parseBitmapsPlace(cursor: ReadCursor): BitmapsPlace {
  const count = cursor.u32be();
  cursor.u32be(); // reserved
  return { count, directoryBytes: cursor.u64be(), directoryOffsetBytes: cursor.u64be() };
}

/** With what no terminal should be sent replaced. */
function text(data: Uint8Array): string {
  return printable(fileName(data));
}

/** Up to the first zero byte. */
function fileName(data: Uint8Array): string {
  const end = data.indexOf(0);
  return nameFromBytes(end < 0 ? data : data.subarray(0, end));
}
