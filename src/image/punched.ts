import { constants } from 'node:os';
import { NEXT_DATA } from '../kernel/fd-calls.js';
import type { FileCalls } from './file-calls.js';

const { EINVAL, ENXIO } = constants.errno;

/**
 * Up to here ext4 punches what it says. Behind what a file in its old format could have, Linux before 6.16 punches nothing and answers a
 * success: from 16 GiB on with blocks of 1 KiB, from 4 TiB on with 4 KiB (ext4_punch_hole, s_bitmap_maxbytes; seen with 6.1).
 */
const TRUSTED_BYTES = 2 ** 34;

/**
 * Whether a range that PUNCH_HOLE has answered a success for reads as zeroes. False says no more than that data are there: in a part of a
 * block, or because somebody has written meanwhile.
 */
export function isPunched(calls: FileCalls, fd: number, offsetBytes: number, length: number): boolean {
  const end = offsetBytes + length;
  if (end <= TRUSTED_BYTES) return true;
  const data = calls.seek(fd, offsetBytes, NEXT_DATA);
  // There are none behind it; or it is a block device, which cannot tell.
  return data >= end || data === -ENXIO || data === -EINVAL;
}
