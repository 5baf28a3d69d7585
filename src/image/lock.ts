import { fstatSync } from 'node:fs';
import { basename } from 'node:path';
import { lockByteRead, probeByteLock } from '../kernel/fd-calls.js';
import { processesWithFileOpen } from '../kernel/proc.js';
import { ImageError } from './errors.js';

// QEMU's image locks (block/file-posix.c): a shared OFD lock on byte 100 + bit for what is done with the image, on byte
// 200 + bit for what nobody else may do. They go when the open file is closed, whatever ends the process.
const USED = 100;
const UNSHARED = 200;
const CONSISTENT_READ = 0;
const WRITE = 1;
const RESIZE = 3;

const HOLDERS_NAMED_MAX = 3;

/** How a raw image is going to be used. */
export interface RawUse {
  readonly readOnly: boolean;
  /** A write may make the file larger. */
  readonly mayGrow: boolean;
}

/**
 * Takes the locks of a raw image and makes sure that nobody else uses it in a way that they forbid. Stricter than QEMU's
 * own raw driver, which lets a second writer in. `fd` keeps the locks; it must be readable.
 *
 * @throws ImageError 'in-use', naming who has the file open
 */
export function lockRawImage(fd: number, path: string, { readOnly, mayGrow }: RawUse): void {
  const used = readOnly ? [CONSISTENT_READ] : mayGrow ? [CONSISTENT_READ, WRITE, RESIZE] : [CONSISTENT_READ, WRITE];
  const unshared = readOnly ? [RESIZE] : [WRITE, RESIZE];
  const own = [...used.map((bit) => USED + bit), ...unshared.map((bit) => UNSHARED + bit)];
  const conflicting = [...used.map((bit) => UNSHARED + bit), ...unshared.map((bit) => USED + bit)];
  // First ours, then the look at theirs: of two that come at once at least one sees the other.
  const taken = own.every((byte) => lockByteRead(fd, byte));
  if (taken && !conflicting.some((byte) => probeByteLock(fd, byte))) return;
  throw new ImageError('in-use', `${path} is in use${holdersOf(fd)}`);
}

/** ' by qemu-nbd (pid 713)'; an OFD lock itself tells no pid. */
function holdersOf(fd: number): string {
  const { dev, ino } = fstatSync(fd);
  const holders = processesWithFileOpen(dev, ino)
    .filter(({ pid, holdsLock }) => holdsLock && pid !== process.pid)
    .slice(0, HOLDERS_NAMED_MAX)
    .map(({ command, pid }) => `${basename(command)} (pid ${pid})`);
  return holders.length === 0 ? ' by another program' : ` by ${holders.join(', ')}`;
}
