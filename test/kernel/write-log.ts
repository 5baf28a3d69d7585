/**
 * The log that the kernel's dm-log-writes keeps of a device: every write in the order in which it became durable. A write is
 * logged when the flush that follows it is done, one with FUA by itself, so what lies before any place of the log is what a
 * power cut there would have left, if the disk lost all that it may lose.
 * (Documentation/admin-guide/device-mapper/log-writes.rst, drivers/md/dm-log-writes.c; all numbers are little-endian.)
 */
const MAGIC = 0x6a736677736872n;
const VERSION = 1n;
/** Of an entry before the text of a mark. */
const ENTRY_BYTES = 32;

const FLUSH = 1n;
const FUA = 2n;
const DISCARD = 4n;
const MARK = 8n;

export interface LoggedWrite {
  readonly offsetBytes: number;
  /** Empty for a flush or a mark. */
  readonly data: Uint8Array;
  /** A flush, or a write with FUA: whoever sent it was told that this much is durable. */
  readonly durable: boolean;
  /** What somebody had to say, by `dmsetup message DEVICE 0 mark TEXT`. */
  readonly mark: string | undefined;
}

/** Goes through a log, oldest first. Throws where it is none. */
export function* loggedWrites(log: Buffer): Generator<LoggedWrite> {
  const version = log.readBigUInt64LE(8);
  if (log.readBigUInt64LE(0) !== MAGIC || version !== VERSION) throw new Error('this is no log of dm-log-writes');
  const entries = Number(log.readBigUInt64LE(16));
  const sectorBytes = log.readUInt32LE(24);
  let at = sectorBytes;
  for (let entry = 0; entry < entries; entry += 1) {
    const offsetBytes = Number(log.readBigUInt64LE(at)) * sectorBytes;
    const lengthBytes = Number(log.readBigUInt64LE(at + 8)) * sectorBytes;
    const flags = log.readBigUInt64LE(at + 16);
    const textBytes = Number(log.readBigUInt64LE(at + 24));
    const text = log.toString('latin1', at + ENTRY_BYTES, at + ENTRY_BYTES + textBytes);
    at += sectorBytes;
    const discarded = (flags & DISCARD) !== 0n;
    const data = discarded ? new Uint8Array(lengthBytes) : log.subarray(at, at + lengthBytes);
    if (!discarded) at += lengthBytes;
    if (at > log.length) throw new Error(`entry ${entry} of ${entries} lies behind the end of the log`);
    const durable = (flags & (FLUSH | FUA)) !== 0n;
    yield { offsetBytes, data, durable, mark: (flags & MARK) === 0n ? undefined : text };
  }
}
