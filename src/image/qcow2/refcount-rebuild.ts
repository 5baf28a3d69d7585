import { fstatSync } from 'node:fs';
import { ImageError } from '../errors.js';
import { fileCalls } from '../file-calls.js';
import type { Census } from './census.js';
import { type CheckedImage, syncTables, writeTable } from './checked-image.js';
import { REFCOUNT_TABLE_BYTES_MAX } from './header.js';
import { putRefcount } from './refcount-codec.js';
import { headerPlace, REFCOUNT_TABLE_PLACE } from './refcount-table-growth.js';

const ENTRY_BYTES = 8;

/**
 * Writes all refcounts anew, in clusters that nothing uses, and then has the header point to them: wherever that is cut off,
 * the image has its old refcounts or its new ones. What the old ones lay in is free.
 *
 * @throws ImageError 'unsupported' where there is no room, 'system'
 */
export function rebuildRefcounts(image: CheckedImage, census: Census): void {
  const { uses, geometry } = census;
  const { clusterBytes, refcountBits } = geometry;
  const { counts } = uses;
  const blockEntries = (clusterBytes * 8) / refcountBits;
  const needed = new Set<number>();
  for (let cluster = counts.next(0); cluster < counts.length; cluster = counts.next(cluster + 1))
    if (counts.get(cluster) > 0) needed.add(Math.floor(cluster / blockEntries));
  const tableClustersFor = (clusters: number) =>
    Math.ceil((Math.ceil(clusters / blockEntries) * ENTRY_BYTES) / clusterBytes);
  // As many as it can be, with those that tell of the new clusters themselves.
  let room = 0;
  for (let before = -1; before !== room; ) {
    before = room;
    room = tableClustersFor(counts.length + room) + needed.size + Math.ceil(room / blockEntries) + 1;
  }
  const first = freeRun(image, census, room);
  const tableClusters = tableClustersFor(Math.max(counts.length, first + room));
  if (tableClusters * clusterBytes > REFCOUNT_TABLE_BYTES_MAX) throw noRoom(image.path);
  for (let cluster = first; cluster < first + room; cluster += 1) needed.add(Math.floor(cluster / blockEntries));
  const used = tableClusters + needed.size;
  census.forgetRefcounts();

  const end = first + used;
  if (end * clusterBytes > image.file.fileBytes && fileCalls.truncate(image.file.fd, end * clusterBytes) !== 0)
    throw noRoom(image.path);
  const table = new DataView(new ArrayBuffer(tableClusters * clusterBytes));
  const bytes = new Uint8Array(clusterBytes);
  let place = first + tableClusters;
  for (const block of needed) {
    bytes.fill(0);
    for (let index = 0; index < blockEntries; index += 1) {
      const cluster = block * blockEntries + index;
      const count = cluster >= first && cluster < end ? 1 : counts.get(cluster);
      if (count > 0) putRefcount(bytes, 0, index, refcountBits, count);
    }
    writeTable(image, place * clusterBytes, bytes);
    table.setBigUint64(block * ENTRY_BYTES, BigInt(place * clusterBytes));
    place += 1;
  }
  writeTable(image, first * clusterBytes, new Uint8Array(table.buffer));
  syncTables(image);
  writeTable(image, REFCOUNT_TABLE_PLACE, headerPlace(first * clusterBytes, tableClusters));
  syncTables(image);
}

/**
 * The first of `length` clusters one behind the other that nothing uses. Behind the end of a file they are made, but not if
 * tables point there: what is written would then be theirs.
 */
function freeRun({ path, file }: CheckedImage, { uses }: Census, length: number): number {
  const { counts, clusters, pointsBehindEnd } = uses;
  let first = 0;
  for (let cluster = counts.next(0); cluster < clusters; cluster = counts.next(cluster + 1)) {
    if (counts.get(cluster) === 0) continue;
    if (cluster - first >= length) return first;
    first = cluster + 1;
  }
  const isInside = clusters - first >= length;
  if (!isInside && (pointsBehindEnd || !fstatSync(file.fd).isFile())) throw noRoom(path);
  return first;
}

function noRoom(path: string): ImageError {
  return new ImageError(
    'unsupported',
    `the refcounts of ${path} cannot be written anew: there is no safe room for them`,
  );
}
