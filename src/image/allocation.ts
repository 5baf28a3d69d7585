import { constants } from 'node:os';
import { END_OF_FILE, NEXT_DATA, NEXT_HOLE } from '../kernel/fd-calls.js';
import type { FileCalls } from './file-calls.js';
import type { Extent } from './image.js';

const { EINVAL, ENOSYS, ENXIO, EOPNOTSUPP } = constants.errno;

/**
 * Fills `extent` with what begins at `offsetBytes` of a file: data or a hole, by SEEK_DATA and SEEK_HOLE. Behind the end of
 * the file, which had `fileBytes`, is a hole. Block devices and some file systems know no holes: all is data there.
 * Answers 0 or a positive errno.
 */
export function allocationStatus(
  calls: FileCalls,
  fd: number,
  fileBytes: number,
  offsetBytes: number,
  length: number,
  extent: Extent,
): number {
  const data = calls.seek(fd, offsetBytes, NEXT_DATA);
  if (data === -ENXIO) return fill(extent, offsetBytes, length, !wasCut(calls, fd, fileBytes, offsetBytes));
  if (data < 0) return isUnknown(-data) ? fill(extent, offsetBytes, length, false) : -data;
  if (data > offsetBytes) return fill(extent, offsetBytes, Math.min(data - offsetBytes, length), true);
  const hole = calls.seek(fd, offsetBytes, NEXT_HOLE);
  // Not behind it: somebody punched a hole meanwhile, or it cannot be told. It was data a moment ago.
  return fill(extent, offsetBytes, hole > offsetBytes ? Math.min(hole - offsetBytes, length) : length, false);
}

/** Where data was before somebody cut the file a read answers EIO: nobody is to take that for zeroes and not read it. */
function wasCut(calls: FileCalls, fd: number, fileBytes: number, offsetBytes: number): boolean {
  return offsetBytes < fileBytes && calls.seek(fd, 0, END_OF_FILE) < fileBytes;
}

function isUnknown(errno: number): boolean {
  return errno === EINVAL || errno === EOPNOTSUPP || errno === ENOSYS;
}

function fill(extent: Extent, offsetBytes: number, lengthBytes: number, empty: boolean): number {
  extent.lengthBytes = lengthBytes;
  extent.hole = empty;
  extent.zero = empty;
  extent.depth = 1;
  extent.hostBytes = offsetBytes;
  return 0;
}
