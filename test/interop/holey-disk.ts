import { randomFillSync } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, statSync, writeSync } from 'node:fs';

/** Data or a hole, as a row of a map. */
export interface Piece {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly isData: boolean;
}

export const DISK_BYTES = 16_777_216;
const KIB = 1_024;
/** Of data; the rest is holes. At the beginning, at the end, small, large, and no two neighbours. */
const DATA: readonly (readonly [offsetBytes: number, lengthBytes: number])[] = [
  [0, 64 * KIB],
  [128 * KIB, 4 * KIB],
  [1_024 * KIB, 3_072 * KIB],
  [6_144 * KIB, 1_024 * KIB],
  [DISK_BYTES - 256 * KIB, 256 * KIB],
];

/** Makes a raw image of random data and holes at `path`; answers where they are. */
export function makeHoleyDisk(path: string): readonly Piece[] {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, DISK_BYTES);
  const pieces: Piece[] = [];
  let at = 0;
  for (const [offsetBytes, lengthBytes] of DATA) {
    writeSync(fd, randomFillSync(Buffer.alloc(lengthBytes)), 0, lengthBytes, offsetBytes);
    if (offsetBytes > at) pieces.push({ offsetBytes: at, lengthBytes: offsetBytes - at, isData: false });
    pieces.push({ offsetBytes, lengthBytes, isData: true });
    at = offsetBytes + lengthBytes;
  }
  closeSync(fd);
  return pieces;
}

/** A raw image of random data from end to end. */
export function makeFullDisk(path: string): void {
  const fd = openSync(path, 'w');
  const piece = randomFillSync(Buffer.alloc(1_048_576));
  for (let at = 0; at < DISK_BYTES; at += piece.length) writeSync(fd, piece, 0, piece.length, at);
  closeSync(fd);
}

export function allocatedBytes(path: string): number {
  return statSync(path).blocks * 512;
}

/** What a file system may need besides the data. */
export const METADATA_BYTES = 65_536;
