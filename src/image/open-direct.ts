import { constants as fsConstants } from 'node:fs';
import { constants } from 'node:os';
import { directIoAlignment } from '../kernel/direct-io.js';
import { errnoText } from '../kernel/errno.js';
import { alignedMemory } from '../kernel/memory.js';
import { DIRECT_BUFFER_BYTES, type DirectFile, MEMORY_ALIGNMENT_BYTES } from './direct-io.js';
import { ImageError } from './errors.js';
import { type FileCalls, fileCalls } from './file-calls.js';
import { markWriting } from './lock.js';
import type { OpenFile } from './open-file.js';

const { EINVAL, EOPNOTSUPP } = constants.errno;

const blockBytesMin = 512;
/** Where nobody tells: the largest that disks have. */
const blockBytesUntold = 4096;

/**
 * Opens an image's file a second time, for reads and writes past the page cache, and tries a read. The caller closes it.
 *
 * @throws ImageError 'system' where the file, the file system or the device below cannot do that
 */
export function openDirect(
  path: string,
  { fd }: OpenFile,
  sizeBytes: number,
  readOnly: boolean,
  calls: FileCalls = fileCalls,
): DirectFile {
  const flags = fsConstants.O_DIRECT | (readOnly ? fsConstants.O_RDONLY : fsConstants.O_RDWR);
  const directFd = calls.reopen(fd, flags);
  if (directFd < 0) throw refusal(path, -directFd);
  try {
    const blockBytes = blockBytesOf(path, directFd, sizeBytes);
    const block = alignedMemory(blockBytes, MEMORY_ALIGNMENT_BYTES);
    const got = calls.read(directFd, block, 0, blockBytes, 0);
    if (got < 0) throw refusal(path, -got);
    if (!readOnly) markWriting(directFd);
    return { fd: directFd, blockBytes };
  } catch (error) {
    calls.close(directFd);
    throw error;
  }
}

function blockBytesOf(path: string, fd: number, sizeBytes: number): number {
  const alignment = directIoAlignment(fd);
  if (alignment?.offsetBytes === 0) throw refusal(path, EOPNOTSUPP);
  const blockBytes = Math.max(alignment?.offsetBytes ?? blockBytesUntold, blockBytesMin);
  const memoryBytes = alignment?.memoryBytes ?? 0;
  if (memoryBytes > MEMORY_ALIGNMENT_BYTES || DIRECT_BUFFER_BYTES % blockBytes !== 0) throw refusal(path, EINVAL);
  if (sizeBytes % blockBytes === 0) return blockBytes;
  throw new ImageError(
    'system',
    `${path} cannot be opened for direct I/O (O_DIRECT): its size of ${sizeBytes} bytes is no multiple of ${blockBytes}, the block size of what it lies on; choose a cache mode that uses the page cache`,
  );
}

function refusal(path: string, errno: number): ImageError {
  return new ImageError(
    'system',
    `${path} cannot be opened for direct I/O (O_DIRECT), which what it lies on may not offer: ${errnoText(errno)}; choose a cache mode that uses the page cache`,
  );
}
