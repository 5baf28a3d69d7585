import { ImageError } from '../errors.js';
import { printable } from '../file-name.js';
import type { OpenFile } from '../open-file.js';
import { geometryOf } from './geometry.js';
import { type Header, inWholeSectors, L1_BYTES_MAX, SECTOR_BYTES } from './header.js';
import { type Snapshot, snapshotsOf } from './snapshots.js';

const L1_ENTRY_BYTES = 8;
/** Names that an error tells. */
const TOLD_MAX = 20;

/** Which internal snapshot is meant, as qemu-nbd takes it: one that has all that is given. */
export type SnapshotChoice =
  /** The one with this id, or where there is none, with this name. */
  { readonly idOrName: string } | { readonly id?: string | undefined; readonly name?: string | undefined };

/**
 * The header that an image would have if its disk were what it was when the snapshot was taken.
 *
 * @throws ImageError 'missing' where there is no such snapshot, 'damaged' where its L1 table cannot be one
 */
export function headerOfSnapshot(path: string, file: OpenFile, header: Header, choice: SnapshotChoice): Header {
  const { snapshots } = snapshotsOf(path, file, header);
  const snapshot = chosen(snapshots, choice);
  if (snapshot === undefined) throw new ImageError('missing', absence(path, snapshots, choice));
  const { clusterBytes, l2Entries } = geometryOf(header);
  const { l1OffsetBytes, l1Entries, diskBytes } = snapshot;
  const isPlace =
    l1OffsetBytes <= BigInt(Number.MAX_SAFE_INTEGER - L1_BYTES_MAX) && Number(l1OffsetBytes) % clusterBytes === 0;
  if (!isPlace || l1Entries * L1_ENTRY_BYTES > L1_BYTES_MAX) throw damaged(path, snapshot);
  const reachedBytes = l1Entries * l2Entries * clusterBytes;
  const wishedBytes = diskBytes ?? BigInt(Math.min(header.sizeBytes, reachedBytes));
  if (wishedBytes > BigInt(Math.min(reachedBytes, Number.MAX_SAFE_INTEGER - SECTOR_BYTES)))
    throw damaged(path, snapshot);
  return { ...header, l1OffsetBytes: Number(l1OffsetBytes), l1Entries, sizeBytes: inWholeSectors(Number(wishedBytes)) };
}

/** An id is looked for first: a snapshot may have another's for its name. */
function chosen(snapshots: readonly Snapshot[], choice: SnapshotChoice): Snapshot | undefined {
  if ('idOrName' in choice) {
    const { idOrName } = choice;
    return snapshots.find(({ id }) => id === idOrName) ?? snapshots.find(({ name }) => name === idOrName);
  }
  return snapshots.find(({ id, name }) => (choice.id ?? id) === id && (choice.name ?? name) === name);
}

function absence(path: string, snapshots: readonly Snapshot[], choice: SnapshotChoice): string {
  const { id, name } = 'idOrName' in choice ? { id: undefined, name: choice.idOrName } : choice;
  const wanted = [id === undefined ? '' : ` with the id '${id}'`, name === undefined ? '' : ` '${name}'`]
    .reverse()
    .join('');
  if (snapshots.length === 0) return `${path} has no snapshot${wanted}: it has none at all`;
  const known = snapshots.slice(0, TOLD_MAX).map((each) => `${printable(each.id)} '${printable(each.name)}'`);
  const more = snapshots.length - known.length;
  return `${path} has no snapshot${wanted}; it has: ${known.join(', ')}${more > 0 ? `, and ${more} more` : ''}`;
}

function damaged(path: string, { id, name }: Snapshot): ImageError {
  const which = `${printable(id)} '${printable(name)}'`;
  return new ImageError(
    'damaged',
    `${path} is a damaged qcow2 image: its snapshot ${which} has an L1 table that is none`,
  );
}
