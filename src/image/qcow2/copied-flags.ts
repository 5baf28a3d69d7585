import type { Census } from './census.js';
import type { Findings } from './check-findings.js';
import { type CheckedImage, type OnProgress, readTable, writeTable } from './checked-image.js';
import { KIND_L1, KIND_L2 } from './cluster-uses.js';
import { COPIED, hostOffset, isCompressed, isCopied } from './entries.js';
import { entryInHex } from './l2-census.js';
import { ONE, UNKNOWN } from './refcount-compare.js';
import type { SparseNumbers } from './sparse-numbers.js';

const ENTRY_BYTES = 8;

/**
 * Finds entries of the disk that say wrongly whether what they point to is counted once, so that it may be written in place.
 * With `isRepair` they are set right, where their table is alone in its clusters. Answers how many were.
 *
 * @throws ImageError 'system'
 */
export function checkCopiedFlags(
  image: CheckedImage,
  census: Census,
  counted: SparseNumbers,
  findings: Findings,
  isRepair: boolean,
  onProgress: OnProgress,
): number {
  const { header } = image;
  const { uses, geometry } = census;
  const { clusterBytes, l2EntryBytes, hasDataFile } = geometry;
  const isAlone = (offsetBytes: number, kind: number) =>
    uses.kinds.get(Math.floor(offsetBytes / clusterBytes)) === kind;
  let fixed = 0;
  /** Answers whether the entry was changed. */
  const check = (table: DataView, at: number, count: number, mayFix: boolean, what: string): boolean => {
    const high = table.getInt32(at);
    if (count === UNKNOWN || (count === ONE) === isCopied(high)) return false;
    if (!isRepair || !mayFix) {
      const should = count === ONE ? 'may' : 'must not';
      findings.corruption(`${what} entry ${entryInHex(high, table.getInt32(at + 4))} ${should} have COPIED set`);
      return false;
    }
    table.setInt32(at, high ^ COPIED);
    fixed += 1;
    return true;
  };
  const l1 = new DataView(new ArrayBuffer(header.l1Entries * ENTRY_BYTES));
  readTable(image, header.l1OffsetBytes, new Uint8Array(l1.buffer));
  const l2 = new DataView(new ArrayBuffer(clusterBytes));
  for (let index = 0; index < header.l1Entries; index += 1) {
    onProgress(index + 1, header.l1Entries);
    const at = index * ENTRY_BYTES;
    const tableBytes = hostOffset(l1.getInt32(at), l1.getInt32(at + 4));
    if (tableBytes === 0) continue;
    const entryAt = header.l1OffsetBytes + at;
    const mayFixL1 = isAlone(entryAt, KIND_L1);
    if (check(l1, at, counted.get(Math.floor(tableBytes / clusterBytes)), mayFixL1, 'L1'))
      writeTable(image, entryAt, new Uint8Array(l1.buffer, at, ENTRY_BYTES));
    if (tableBytes < 0 || tableBytes >= image.file.fileBytes) continue;
    readTable(image, tableBytes, new Uint8Array(l2.buffer));
    const mayFixL2 = tableBytes % clusterBytes === 0 && isAlone(tableBytes, KIND_L2);
    let isChanged = false;
    for (let entry = 0; entry < clusterBytes; entry += l2EntryBytes) {
      const high = l2.getInt32(entry);
      const dataBytes = hostOffset(high, l2.getInt32(entry + 4));
      const isData = dataBytes !== 0 || (hasDataFile && isCopied(high));
      if (isCompressed(high) || !isData) continue;
      const count = hasDataFile ? ONE : counted.get(Math.floor(dataBytes / clusterBytes));
      isChanged = check(l2, entry, count, mayFixL2, 'L2') || isChanged;
    }
    if (isChanged) writeTable(image, tableBytes, new Uint8Array(l2.buffer));
  }
  return fixed;
}
