import { libc } from './libc.js';
import { AT_EMPTY_PATH, STATX_DIOALIGN, STRUCT_STATX } from './libc-abi.js';

/** What reads and writes past the page cache (O_DIRECT) must be multiples of; 0 where a file has none. */
export interface DirectIoAlignment {
  readonly memoryBytes: number;
  readonly offsetBytes: number;
}

const emptyPath = new Uint8Array(1);

/** Absent where the kernel (before 6.1) or the file system does not tell. statx(2), "stx_dio_mem_align". */
export function directIoAlignment(fd: number): DirectIoAlignment | undefined {
  const stat = new Uint8Array(STRUCT_STATX.sizeof);
  if (libc.statx(fd, emptyPath, AT_EMPTY_PATH, STATX_DIOALIGN, stat) < 0) return undefined;
  const view = new DataView(stat.buffer);
  if ((view.getUint32(STRUCT_STATX.stx_mask, true) & STATX_DIOALIGN) === 0) return undefined;
  return {
    memoryBytes: view.getUint32(STRUCT_STATX.stx_dio_mem_align, true),
    offsetBytes: view.getUint32(STRUCT_STATX.stx_dio_offset_align, true),
  };
}
