import { ImageError } from './errors.js';
import type { ImagePart } from './part.js';

/** Reads `length` bytes of a disk of `sizeBytes`, all of them inside. */
export interface ReadableDisk {
  readonly sizeBytes: number;
  bytes(offsetBytes: number, length: number): Buffer;
}

interface Partition extends ImagePart {
  /** As Linux counts it: 1 to 4 and more in a GPT, from 5 on what is in an extended partition. */
  readonly number: number;
}

const MBR = { bytes: 512, table: 446, entryBytes: 16, entries: 4, signature: 0xaa55, sectorBytes: 512 } as const;
const PROTECTIVE = 0xee;
const EXTENDED: readonly number[] = [0x05, 0x0f, 0x85];
/** More than Linux shows of a device; a chain that goes on is a loop, or nothing that anybody made. */
const LOGICAL_MAX = 250;

/** UEFI specification, 5.3.2; the header of each is in the block behind the first. */
const GPT = { signature: 'EFI PART', headerBytes: 92, blocks: [512, 4096], entryBytesMin: 128 } as const;
const GPT_TABLE_BYTES_MAX = 1 << 20;

/**
 * The partition `number` of a disk, by its GPT or its MBR, whose first sector a GPT has too.
 *
 * @throws ImageError 'missing', 'damaged'
 */
export function findPartition(disk: ReadableDisk, number: number): ImagePart {
  const partitions = gptPartitions(disk) ?? mbrPartitions(disk);
  if (partitions === undefined) throw new ImageError('missing', 'it has no partition table');
  const found = partitions.find((one) => one.number === number);
  if (found === undefined) {
    const others = partitions.map((one) => one.number).join(', ');
    throw new ImageError('missing', `it has no partition ${number}${others === '' ? '' : `; there are ${others}`}`);
  }
  const { offsetBytes, sizeBytes } = found;
  if (sizeBytes > 0 && offsetBytes + sizeBytes <= disk.sizeBytes) return { offsetBytes, sizeBytes };
  throw new ImageError('damaged', `its partition ${number} ends beyond the disk, or before it begins`);
}

function gptPartitions(disk: ReadableDisk): readonly Partition[] | undefined {
  for (const blockBytes of GPT.blocks) {
    if (disk.sizeBytes < 2 * blockBytes) continue;
    const header = disk.bytes(blockBytes, blockBytes);
    if (header.toString('latin1', 0, GPT.signature.length) === GPT.signature)
      return gptEntries(disk, header, blockBytes);
  }
  return undefined;
}

function gptEntries(disk: ReadableDisk, header: Buffer, blockBytes: number): readonly Partition[] {
  const { crc32 } = process.getBuiltinModule('node:zlib');
  const damaged = new ImageError('damaged', 'its partition table (GPT) is damaged');
  const headerBytes = header.readUInt32LE(12);
  if (headerBytes < GPT.headerBytes || headerBytes > blockBytes) throw damaged;
  const summed = Buffer.from(header.subarray(0, headerBytes));
  summed.writeUInt32LE(0, 16); // where the sum itself stands
  if (crc32(summed) !== header.readUInt32LE(16)) throw damaged;
  const count = header.readUInt32LE(80);
  const entryBytes = header.readUInt32LE(84);
  const tableBytes = count * entryBytes;
  const tableOffset = bytesOf(header.readBigUInt64LE(72), blockBytes);
  if (entryBytes < GPT.entryBytesMin || tableBytes > GPT_TABLE_BYTES_MAX) throw damaged;
  if (tableOffset + tableBytes > disk.sizeBytes) throw damaged;
  const table = disk.bytes(tableOffset, tableBytes);
  if (crc32(table) !== header.readUInt32LE(88)) throw damaged;
  return Array.from({ length: count }, (_, index) => table.subarray(index * entryBytes, (index + 1) * entryBytes))
    .map((entry, index) => ({ entry, number: index + 1 }))
    .filter(({ entry }) => entry.subarray(0, 16).some((byte) => byte !== 0))
    .map(({ entry, number }) => {
      const offsetBytes = bytesOf(entry.readBigUInt64LE(32), blockBytes);
      return {
        number,
        offsetBytes,
        sizeBytes: bytesOf(entry.readBigUInt64LE(40), blockBytes) + blockBytes - offsetBytes,
      };
    });
}

/** What no number can hold is beyond every disk. */
function bytesOf(blocks: bigint, blockBytes: number): number {
  return Number(blocks) * blockBytes;
}

interface MbrEntry extends ImagePart {
  readonly type: number;
}

/** Offsets as they stand there: what they count from, the caller knows. Undefined: it is no boot record with a table. */
function mbrEntries(disk: ReadableDisk, recordBytes: number): readonly MbrEntry[] | undefined {
  if (recordBytes + MBR.bytes > disk.sizeBytes) return undefined;
  const record = disk.bytes(recordBytes, MBR.bytes);
  if (record.readUInt16LE(MBR.bytes - 2) !== MBR.signature) return undefined;
  const entries = Array.from({ length: MBR.entries }, (_, index) => {
    const at = MBR.table + index * MBR.entryBytes;
    return {
      flag: record.readUInt8(at),
      type: record.readUInt8(at + 4),
      offsetBytes: record.readUInt32LE(at + 8) * MBR.sectorBytes,
      sizeBytes: record.readUInt32LE(at + 12) * MBR.sectorBytes,
    };
  });
  // A file system's boot sector has the signature too, and code in place of the flags.
  return entries.every(({ flag }) => flag === 0 || flag === 0x80) ? entries : undefined;
}

function mbrPartitions(disk: ReadableDisk): readonly Partition[] | undefined {
  const primary = mbrEntries(disk, 0);
  if (primary === undefined || primary.some(({ type }) => type === PROTECTIVE)) return undefined;
  const found = primary.map((entry, index) => ({ ...entry, number: index + 1 })).filter(isUsed);
  const extended = found.find(isChain);
  const logical = extended === undefined ? [] : logicalPartitions(disk, extended.offsetBytes);
  return [...found.filter((entry) => !isChain(entry)), ...logical];
}

/** Each record of the chain has a partition, counted from the record, and the next record, counted from the first. */
function logicalPartitions(disk: ReadableDisk, firstBytes: number): readonly Partition[] {
  const found: Partition[] = [];
  let recordBytes: number | undefined = firstBytes;
  while (recordBytes !== undefined) {
    if (found.length >= LOGICAL_MAX) throw new ImageError('damaged', 'its chain of partitions does not end');
    const entries: readonly MbrEntry[] = mbrEntries(disk, recordBytes)?.filter(isUsed) ?? [];
    const own = entries.find((entry) => !isChain(entry));
    if (own === undefined) break;
    found.push({ ...own, offsetBytes: recordBytes + own.offsetBytes, number: MBR.entries + 1 + found.length });
    const next: MbrEntry | undefined = entries.find(isChain);
    recordBytes = next === undefined ? undefined : firstBytes + next.offsetBytes;
  }
  return found;
}

const isUsed = ({ type, sizeBytes }: MbrEntry) => type !== 0 && sizeBytes > 0;
const isChain = ({ type }: MbrEntry) => EXTENDED.includes(type);
