import { PUNCH_HOLE } from '../kernel/fd-calls.js';
import { deviceNumberText } from '../kernel/proc-tables.js';
import { queueAttribute } from '../kernel/sysfs.js';
import { devicesBelow } from './backing-device.js';
import { type FileCalls, fileCalls } from './file-calls.js';
import type { OpenFile } from './open-file.js';

/** What clients get to know of the storage below an image. */
export interface ImageTraits {
  /** It lies on a disk that turns: near is faster than far. */
  readonly rotational: boolean;
  /** It can be zeroed without zeroes being written. */
  readonly fastZero: boolean;
  /** Its storage can be given back, and is when a client trims. */
  readonly trim: boolean;
}

/** What the storage below a file or block device can do without writing zeroes. */
export interface ZeroingAbility {
  /** Holes can be punched. */
  readonly punches: boolean;
  /** ZERO_RANGE would write zeroes. */
  readonly slowZeroRange: boolean;
  /** What ranges must be multiples of. */
  readonly zeroBlockBytes: number;
}

/** Behind the end of every file lies nothing that a hole could change: punching one there only tells whether it can be. */
const probeBytes = 4096;
/** Where nobody tells: the largest that disks have. */
const blockBytesUntold = 4096;

/**
 * By sysfs for a block device: without a command of its own for zeroes the kernel writes them for ZERO_RANGE, and answers
 * EOPNOTSUPP to PUNCH_HOLE (block/blk-lib.c: blkdev_issue_zeroout); either takes whole logical blocks. `file` is open for writing.
 */
export function zeroingAbility(
  { fd, stat, fileBytes }: OpenFile,
  root = '',
  calls: FileCalls = fileCalls,
): ZeroingAbility {
  if (stat.isBlockDevice()) {
    const number = deviceNumberText(stat.rdev);
    const zeroesInOneGo = (queueAttribute(number, 'write_zeroes_max_bytes', root) ?? 0) > 0;
    const zeroBlockBytes = queueAttribute(number, 'logical_block_size', root) ?? blockBytesUntold;
    return { punches: zeroesInOneGo, slowZeroRange: !zeroesInOneGo, zeroBlockBytes };
  }
  const behindEnd = Math.ceil(fileBytes / probeBytes) * probeBytes;
  return {
    punches: calls.fallocate(fd, PUNCH_HOLE, behindEnd, probeBytes) === 0,
    slowZeroRange: false,
    zeroBlockBytes: 1,
  };
}

/** Whether one of the disks that the image at `path` lies on turns; one that is not seen does not. */
export function isRotational(path: string, root = ''): boolean {
  return devicesBelow(path, root).some((number) => queueAttribute(number, 'rotational', root) === 1);
}
