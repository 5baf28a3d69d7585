import { CursorError, ReadCursor } from '../../base/cursor.js';
import { ImageError } from '../errors.js';
import type { OpenFile } from '../open-file.js';
import type { Header } from './header.js';
import { readAt } from './read-at.js';

const EXTRA_BYTES_MAX = 1_024;
const VM_STATE_FIELD_BYTES = 8;
const DISK_SIZE_FIELD_END = 16;
const INSTRUCTIONS_FIELD_END = 24;
const NOT_COUNTED = 2n ** 64n - 1n;
const ALIGNMENT_BYTES = 8;
const FIXED_BYTES = 40;

/** Of all snapshots together: QEMU's limit. */
const SNAPSHOT_TABLE_BYTES_MAX = 64 << 20;

/** The longest that an entry of the snapshot table can be. */
const SNAPSHOT_BYTES_MAX = FIXED_BYTES + EXTRA_BYTES_MAX + 2 * 65_535 + ALIGNMENT_BYTES;

/** An internal snapshot: another L1 table (qcow2.rst, 'Snapshots'). */
export interface Snapshot {
  readonly id: string;
  readonly name: string;
  readonly l1OffsetBytes: bigint;
  readonly l1Entries: number;
  readonly vmStateBytes: bigint;
  /** Absent: as the image's. */
  readonly diskBytes: bigint | undefined;
  readonly takenSeconds: number;
  readonly takenNanoseconds: number;
  /** How long the guest had run. */
  readonly guestNanoseconds: bigint;
  /** Instructions that the guest had executed; absent: nobody counted. */
  readonly instructions: bigint | undefined;
}

/** The snapshots of an image, and how long their table is. @throws ImageError 'damaged' */
export function snapshotsOf(
  path: string,
  file: OpenFile,
  header: Header,
): { snapshots: readonly Snapshot[]; tableBytes: number } {
  const { snapshots: count, snapshotsOffsetBytes } = header;
  if (count === 0) return { snapshots: [], tableBytes: 0 };
  const there = Math.max(0, file.fileBytes - snapshotsOffsetBytes);
  const bytes = Math.min(there, count * SNAPSHOT_BYTES_MAX, SNAPSHOT_TABLE_BYTES_MAX);
  const parsed = parseSnapshots(readAt(path, file.fd, snapshotsOffsetBytes, bytes), count);
  if (parsed !== undefined) return parsed;
  throw new ImageError('damaged', `${path} is a damaged qcow2 image: its snapshot table makes no sense`);
}

/** Reads the table in `bytes`, which may go on behind it. Answers it and how long it is; absent where it does not fit. */
export function parseSnapshots(
  bytes: Uint8Array,
  count: number,
): { readonly snapshots: readonly Snapshot[]; readonly tableBytes: number } | undefined {
  const cursor = new ReadCursor(bytes);
  const snapshots: Snapshot[] = [];
  try {
    for (let index = 0; index < count; index += 1) {
      const snapshot = parseSnapshot(cursor);
      if (snapshot === undefined) return undefined;
      snapshots.push(snapshot);
      const used = bytes.length - cursor.remainingBytes;
      cursor.bytes(Math.min(-used & (ALIGNMENT_BYTES - 1), cursor.remainingBytes));
    }
  } catch (error) {
    if (error instanceof CursorError) return undefined;
    throw error;
  }
  return { snapshots, tableBytes: bytes.length - cursor.remainingBytes };
}

function parseSnapshot(cursor: ReadCursor): Snapshot | undefined {
  const l1OffsetBytes = cursor.u64be();
  const l1Entries = cursor.u32be();
  const idBytes = cursor.u16be();
  const nameBytes = cursor.u16be();
  const takenSeconds = cursor.u32be();
  const takenNanoseconds = cursor.u32be();
  const guestNanoseconds = cursor.u64be();
  const vmStateBytes = BigInt(cursor.u32be());
  const extraBytes = cursor.u32be();
  if (extraBytes > EXTRA_BYTES_MAX) return undefined;
  const extra = new ReadCursor(cursor.bytes(extraBytes));
  const longVmStateBytes = extraBytes >= VM_STATE_FIELD_BYTES ? extra.u64be() : vmStateBytes;
  const diskBytes = extraBytes >= DISK_SIZE_FIELD_END ? extra.u64be() : undefined;
  const counted = extraBytes >= INSTRUCTIONS_FIELD_END ? extra.u64be() : NOT_COUNTED;
  const id = Buffer.from(cursor.bytes(idBytes)).toString('utf8');
  const name = Buffer.from(cursor.bytes(nameBytes)).toString('utf8');
  return {
    id,
    name,
    l1OffsetBytes,
    l1Entries,
    vmStateBytes: longVmStateBytes,
    diskBytes,
    takenSeconds,
    takenNanoseconds,
    guestNanoseconds,
    instructions: counted === NOT_COUNTED ? undefined : counted,
  };
}
