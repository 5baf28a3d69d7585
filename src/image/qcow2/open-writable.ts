import { errnoText } from '../../kernel/errno.js';
import { ImageError } from '../errors.js';
import { type FileCalls, fileCalls } from '../file-calls.js';
import { lookedAtAgain, type OpenFile } from '../open-file.js';
import { leftDamaged, repairQcow2 } from './check-qcow2.js';
import { AUTOCLEAR_BITMAPS, AUTOCLEAR_RAW_DATA } from './features.js';
import type { Geometry } from './geometry.js';
import type { Qcow2Handle } from './handle.js';
import { type Header, readHeader } from './header.js';
import { L2Tables } from './l2-tables.js';
import {
  FRESH_FROM,
  IS_PREPARED,
  NEXT_FREE,
  type Qcow2Memory,
  REACHED,
  TABLE_CLUSTERS,
  TABLE_OFFSET,
  TABLE_ROOM,
  type WriteMemory,
} from './memory.js';
import { L2_TABLE, MetadataAreas, REFCOUNT_BLOCK } from './metadata-areas.js';
import { readAt } from './read-at.js';
import { Refcounts } from './refcounts.js';
import { refuseEndless } from './refuse-endless.js';
import { snapshotsOf } from './snapshots.js';
import { WriteOrder } from './write-order.js';

const L1_ENTRY_BYTES = 8;
/** Before an image is opened for writing. @throws ImageError 'damaged' for one that must not be written to */
function refuseUnwritable(path: string, { isCorrupt }: Header): void {
  if (!isCorrupt) return;
  throw new ImageError(
    'damaged',
    `${path} is marked as corrupt, and is not opened for writing; repair it with: tsnbd check -r all ${path}`,
  );
}

/**
 * An image that may be written to. Where its last writer has left it dirty, refcounts are postponed (qcow2.rst, 'Dirty bit')
 * and made right first.
 *
 * @throws ImageError 'damaged' for one that must not be written to
 */
export function withRefcounts(
  path: string,
  file: OpenFile,
  header: Header,
): { readonly file: OpenFile; readonly header: Header } {
  refuseUnwritable(path, header);
  if (!header.isDirty) return { file, header };
  refuseEndless(path, file, header);
  const watch = { onFinding: () => {}, onProgress: () => {} };
  const { corruptions, checkErrors } = repairQcow2(path, file, 'all', watch, true);
  if (corruptions + checkErrors > 0) throw leftDamaged(path);
  const grown = lookedAtAgain(file);
  return { file: grown, header: readHeader(path, grown) };
}

/**
 * Brings what a writer must know into memory: the refcount table, and where all tables lie.
 *
 * @throws ImageError 'damaged' where they contradict each other
 */
export function prepareWriting(
  path: string,
  file: OpenFile,
  header: Header,
  geometry: Geometry,
  memory: Qcow2Memory,
): void {
  const { write, fields } = memory;
  if (write === undefined) return;
  const { numbers } = write;
  const { clusterBytes } = geometry;
  const tableBytes = header.refcountTableClusters * clusterBytes;
  const table = readAt(path, file.fd, header.refcountTableOffsetBytes, tableBytes);
  new Uint8Array(write.refcountTable.buffer).set(table);
  numbers[TABLE_OFFSET] = header.refcountTableOffsetBytes;
  numbers[TABLE_CLUSTERS] = header.refcountTableClusters;
  numbers[TABLE_ROOM] = header.refcountTableClusters;
  numbers[NEXT_FREE] = 1;
  // What lies behind the last cluster that is counted may be a crash's: only behind the end of a file is nothing at all.
  const isFile = file.stat.isFile();
  numbers[FRESH_FROM] = isFile ? Math.ceil(file.fileBytes / clusterBytes) : Number.MAX_SAFE_INTEGER;
  numbers[REACHED] = isFile ? file.fileBytes : Number.POSITIVE_INFINITY;
  const kept = geometry.rawDataFile ? AUTOCLEAR_RAW_DATA : 0n;
  if (header.autoclear === kept) Atomics.store(fields, IS_PREPARED, 1);
  markAreas(path, file, header, geometry, memory, write);
}

function markAreas(
  path: string,
  file: OpenFile,
  header: Header,
  geometry: Geometry,
  memory: Qcow2Memory,
  write: WriteMemory,
): void {
  const { clusterBytes, slices, slicesPerTable } = geometry;
  const areas = new MetadataAreas(write.areas);
  const area = (offsetBytes: number, bytes: number) =>
    [offsetBytes / clusterBytes, Math.ceil(bytes / clusterBytes)] as const;
  const { snapshots, tableBytes } = snapshotsOf(path, file, header);
  // Where bitmaps are out of date, what their list lay in may be anybody's.
  const bitmaps = (header.autoclear & AUTOCLEAR_BITMAPS) === 0n ? undefined : header.bitmaps;
  const contradiction = (what: string) =>
    new ImageError('damaged', `${path} is a damaged qcow2 image: ${what}; see: tsnbd check`);
  // The header and the L1 table are written to, the others only stand there.
  const others = [
    area(header.snapshotsOffsetBytes, tableBytes),
    ...snapshots.map((each) => area(Number(each.l1OffsetBytes), each.l1Entries * L1_ENTRY_BYTES)),
    ...(bitmaps === undefined ? [] : [area(Number(bitmaps.directoryOffsetBytes), Number(bitmaps.directoryBytes))]),
  ];
  const own = [area(0, clusterBytes), area(header.l1OffsetBytes, header.l1Entries * L1_ENTRY_BYTES)] as const;
  areas.fix(others);
  if (areas.hasFixed(...own[0])) throw contradiction('its header overlaps a table');
  if (header.l1OffsetBytes === 0 || areas.hasFixed(...own[1]))
    throw contradiction('its L1 table overlaps another table');
  areas.fix([...own, ...others]);

  const table = header.refcountTableOffsetBytes / clusterBytes;
  const isTable = (cluster: number) => cluster >= table && cluster < table + header.refcountTableClusters;
  if (areas.hasFixed(table, header.refcountTableClusters))
    throw contradiction('its refcount table overlaps another table');
  const refcounts = new Refcounts(geometry, write, file.fd, fileCalls);
  for (let block = 0; block < refcounts.tableEntries; block += 1) {
    const offsetBytes = refcounts.tableEntry(block);
    if (offsetBytes === 0) continue;
    const cluster = offsetBytes / clusterBytes;
    if (offsetBytes < 0 || areas.hasAny(cluster, 1) || isTable(cluster)) {
      throw contradiction(`its refcount block ${block} lies where another table is, or nowhere`);
    }
    areas.add(cluster, REFCOUNT_BLOCK);
  }
  const tables = new L2Tables(geometry, memory, file.fd, fileCalls);
  for (let slice = 0; slice < slices; slice += slicesPerTable) {
    const offsetBytes = tables.offsetOf(slice);
    if (offsetBytes === 0) continue;
    const cluster = offsetBytes / clusterBytes;
    if (offsetBytes < 0 || areas.hasAny(cluster, 1) || isTable(cluster)) {
      throw contradiction(`its L2 table ${slice / slicesPerTable} lies where another table is, or nowhere`);
    }
    areas.add(cluster, L2_TABLE);
  }
}

/**
 * When the last worker is gone: everything that is in memory reaches the file, and what was dropped is free.
 *
 * @throws ImageError 'system' where it could not be written
 */
export function finishWriting(path: string, handle: Qcow2Handle, calls: FileCalls = fileCalls): void {
  const { geometry, memory, fd } = handle;
  if (memory.write === undefined) return;
  const order = new WriteOrder(handle, memory.write, new L2Tables(geometry, memory, fd, calls), calls, undefined);
  if (order.state !== 0) return;
  // The first frees what was dropped, the second tells the file.
  let errno = order.flush();
  if (errno === 0) errno = order.settle();
  if (errno === 0) errno = order.flush();
  order.allocator.reserved.giveBack();
  if (errno !== 0)
    throw new ImageError('system', `what was written to ${path} could not be brought to the disk: ${errnoText(errno)}`);
}
