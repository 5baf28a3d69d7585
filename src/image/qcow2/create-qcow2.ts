import type { FileInTheMaking } from '../creation.js';
import { copiedHigh, offsetLow } from './entries.js';
import { l2EntryBytesOf } from './geometry.js';
import type { Layout } from './new-layout.js';
import { putRefcount } from './refcount-codec.js';

const ENTRY_BYTES = 8;
/** Tables written between two looks whether the image is still wanted. */
const TABLES_AT_ONCE = 16;

/**
 * Writes a new image to an empty file. The header comes last, behind a sync of all that it points to: whenever this is cut
 * off, what is there is no qcow2 image. With nothing to tell of, a subcluster of a preallocated cluster is unallocated,
 * so that a backing file still shows.
 */
export async function writeNewQcow2(
  file: FileInTheMaking,
  layout: Layout,
  header: Uint8Array,
  sync: () => void,
): Promise<void> {
  const { form, dataClusters, dataFrom, clusters } = layout;
  const { clusterBytes, preallocation } = form;
  if (form.dataFile === undefined) {
    const [dataAt, dataBytes] = [dataFrom * clusterBytes, dataClusters * clusterBytes];
    if (preallocation === 'falloc') file.reserve(dataAt, dataBytes);
    if (preallocation === 'full') await file.writeZeroes(dataAt, dataBytes);
  }
  file.resize(clusters * clusterBytes);
  await writeRefcounts(file, layout);
  await writeTables(file, layout);
  sync();
  file.write(0, header);
}

/** Every cluster of the file is used once. */
async function writeRefcounts(
  file: FileInTheMaking,
  { form, refcountTableClusters, refcountBlocks, clusters }: Layout,
): Promise<void> {
  const { clusterBytes, refcountBits } = form;
  const blocksFrom = 1 + refcountTableClusters;
  const blockEntries = (clusterBytes * 8) / refcountBits;
  const table = new DataView(new ArrayBuffer(refcountBlocks * ENTRY_BYTES));
  let bytes = refcountBlock(Math.min(blockEntries, clusters), refcountBits);
  for (let block = 0; block < refcountBlocks; block += 1) {
    const entries = Math.min(blockEntries, clusters - block * blockEntries);
    if (block > 0 && entries < blockEntries) bytes = refcountBlock(entries, refcountBits);
    file.write((blocksFrom + block) * clusterBytes, bytes);
    table.setBigUint64(block * ENTRY_BYTES, BigInt((blocksFrom + block) * clusterBytes));
    if (block % TABLES_AT_ONCE === 0) await file.mayStop();
  }
  file.write(clusterBytes, new Uint8Array(table.buffer));
}

/** The beginning of a block, `entries` refcounts of 1; behind them the file reads as zeroes. */
export function refcountBlock(entries: number, bits: number): Uint8Array {
  const bytes = new Uint8Array(Math.ceil((entries * bits) / 8));
  for (let index = 0; index < entries; index += 1) putRefcount(bytes, 0, index, bits, 1);
  return bytes;
}

/** L2 tables that point to one cluster behind the other, and the L1 table that points to them; what is unallocated is zeroes already. */
async function writeTables(file: FileInTheMaking, layout: Layout): Promise<void> {
  const { form, l1From, l2Tables, l2From, dataClusters, dataFrom } = layout;
  const { clusterBytes, extendedL2, dataFile } = form;
  const entryBytes = l2EntryBytesOf(extendedL2);
  const l2Entries = clusterBytes / entryBytes;
  const firstByte = dataFile === undefined ? dataFrom * clusterBytes : 0;
  const l1 = new DataView(new ArrayBuffer(l2Tables * ENTRY_BYTES));
  for (let table = 0; table < l2Tables; table += 1) {
    const l2 = new DataView(new ArrayBuffer(clusterBytes));
    const entries = Math.min(l2Entries, dataClusters - table * l2Entries);
    for (let entry = 0; entry < entries; entry += 1) {
      putEntry(l2, entry * entryBytes, firstByte + (table * l2Entries + entry) * clusterBytes);
    }
    const tableAt = (l2From + table) * clusterBytes;
    file.write(tableAt, new Uint8Array(l2.buffer));
    putEntry(l1, table * ENTRY_BYTES, tableAt);
    if (table % TABLES_AT_ONCE === 0) await file.mayStop();
  }
  file.write(l1From * clusterBytes, new Uint8Array(l1.buffer));
}

function putEntry(table: DataView, at: number, offsetBytes: number): void {
  table.setInt32(at, copiedHigh(offsetBytes));
  table.setInt32(at + 4, offsetLow(offsetBytes));
}
