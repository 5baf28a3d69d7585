import {
  closeSync,
  constants as fsConstants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  type Stats,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import { errnoText } from '../kernel/errno.js';
import { fallocate } from '../kernel/fd-calls.js';
import { ImageError, reasonOf } from './errors.js';
import { inUseError } from './in-use.js';
import { rawLockPlan, takeLocks } from './lock.js';
import type { Preallocation } from './preallocations.js';

const sectorBytes = 512;
const newFileMode = 0o644;
const pieceBytes = 1_048_576;

/** Who waits for an image. */
export interface CreationWatch {
  /** Aborted when it is no longer wanted. */
  readonly stop: AbortSignal;
  /** Told now and then while zeroes are written. */
  readonly onProgress: (doneBytes: number, totalBytes: number) => void;
}

/**
 * Makes a raw image of `sizeBytes`, rounded up to whole sectors, as QEMU does: a file that is there already is emptied
 * first. Where it cannot be made, a new file is removed again, and one that was there is left empty.
 *
 * @throws ImageError
 */
export async function createRawImage(
  path: string,
  sizeBytes: number,
  preallocation: Preallocation,
  watch: CreationWatch,
): Promise<void> {
  const wholeBytes = Math.ceil(sizeBytes / sectorBytes) * sectorBytes;
  if (!Number.isSafeInteger(wholeBytes)) {
    throw new ImageError('not-an-image', `${path} would be larger than ${Number.MAX_SAFE_INTEGER} bytes`);
  }
  const { fd, isNew, stat } = openOrMake(path);
  let isDone = false;
  try {
    if (!stat.isFile())
      throw new ImageError('not-an-image', `${path} is not a regular file: nothing can be made of it`);
    const conflict = takeLocks(fd, rawLockPlan(false, true));
    if (conflict !== undefined) throw inUseError(path, { stat }, conflict);
    await allocate(path, fd, wholeBytes, preallocation, watch);
    isDone = true;
  } finally {
    closeSync(fd);
    if (!isDone && isNew) unlinkSync(path);
  }
}

interface MadeFile {
  readonly fd: number;
  readonly isNew: boolean;
  readonly stat: Stats;
}

/** O_NONBLOCK: a pipe is not waited for, it is refused. */
function openOrMake(path: string): MadeFile {
  const { O_RDWR, O_CREAT, O_EXCL, O_NONBLOCK } = fsConstants;
  const open = (flags: number) => openSync(path, O_RDWR | O_NONBLOCK | flags, newFileMode);
  try {
    const [fd, isNew] = opened(
      () => open(O_CREAT | O_EXCL),
      () => open(O_CREAT),
    );
    return { fd, isNew, stat: fstatSync(fd) };
  } catch (cause) {
    throw new ImageError('system', `cannot create ${path}: ${reasonOf(cause)}`, { cause });
  }
}

function opened(make: () => number, use: () => number): readonly [fd: number, isNew: boolean] {
  try {
    return [make(), true];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    return [use(), false];
  }
}

async function allocate(
  path: string,
  fd: number,
  sizeBytes: number,
  preallocation: Preallocation,
  watch: CreationWatch,
): Promise<void> {
  try {
    ftruncateSync(fd, 0);
    if (preallocation === 'full') await writeZeroes(path, fd, sizeBytes, watch);
    if (preallocation === 'falloc' && sizeBytes > 0) reserve(path, fd, sizeBytes);
    ftruncateSync(fd, sizeBytes);
    if (preallocation === 'full') fsyncSync(fd);
  } catch (error) {
    ftruncateSync(fd, 0); // what was reserved is no use to anybody
    if (error instanceof ImageError) throw error;
    const doing = `cannot make ${path} ${sizeBytes} bytes large`;
    throw new ImageError('system', `${doing}: ${reasonOf(error)}`, { cause: error });
  }
}

function reserve(path: string, fd: number, sizeBytes: number): void {
  const result = fallocate(fd, 0, 0, sizeBytes);
  if (result < 0)
    throw new ImageError('system', `cannot reserve ${sizeBytes} bytes for ${path}: ${errnoText(-result)}`);
}

async function writeZeroes(path: string, fd: number, sizeBytes: number, watch: CreationWatch): Promise<void> {
  const zeroes = new Uint8Array(Math.min(pieceBytes, sizeBytes));
  for (let at = 0; at < sizeBytes; ) {
    at += writeSync(fd, zeroes, 0, Math.min(zeroes.length, sizeBytes - at), at);
    watch.onProgress(at, sizeBytes);
    await turn(); // a signal is heard of only between two turns of the event loop
    if (watch.stop.aborted) throw new ImageError('interrupted', `interrupted; did not make ${path}`);
  }
}
