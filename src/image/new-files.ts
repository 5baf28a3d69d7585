import {
  closeSync,
  constants as fsConstants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  type Stats,
  unlinkSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { ImageError, reasonOf } from './errors.js';
import { inUseError } from './in-use.js';
import { rawLockPlan, takeLocks } from './lock.js';

const newFileMode = 0o644;

interface MadeFile {
  readonly path: string;
  readonly fd: number;
  readonly isNew: boolean;
  readonly stat: Stats;
}

/**
 * Files that are made together. A file that is there already is emptied, as QEMU does, but none that anybody has in use, and
 * none before all of them are open and locked. Where not all can be made, new ones are removed again, and one that was
 * emptied is left empty.
 */
export class NewFiles {
  readonly #files: MadeFile[] = [];
  #areEmptied = false;

  /** Answers the fd of a file, locked, to be written to when all are emptied. Where it throws, `end` is to follow. @throws ImageError */
  make(path: string): number {
    const file = openOrMake(path);
    const { fd, stat } = file;
    this.#files.push(file);
    if (!stat.isFile())
      throw new ImageError('not-an-image', `${path} is not a regular file: nothing can be made of it`);
    const conflict = takeLocks(fd, rawLockPlan(false, true));
    if (conflict !== undefined) throw inUseError(path, file, conflict);
    return fd;
  }

  /** From here on nothing is there of what was. */
  empty(): void {
    this.#areEmptied = true;
    for (const { fd } of this.#files) ftruncateSync(fd, 0);
  }

  /** What was written to the files is on stable storage, and so are their names. @throws ImageError */
  sync(): void {
    for (const { path, fd } of this.#files) {
      try {
        fsyncSync(fd);
        syncFolder(dirname(path));
      } catch (cause) {
        throw new ImageError('system', `cannot bring ${path} to the disk: ${reasonOf(cause)}`, { cause });
      }
    }
  }

  /** Closes the files; what nobody can use is no longer there. */
  end(areDone: boolean): void {
    for (const { path, fd, isNew } of this.#files.splice(0)) {
      if (!areDone && this.#areEmptied) ftruncateSync(fd, 0);
      closeSync(fd);
      if (!areDone && isNew) unlinkSync(path);
    }
  }
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
    return { path, fd, isNew, stat: fstatSync(fd) };
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

function syncFolder(path: string): void {
  const fd = openSync(path, fsConstants.O_RDONLY | fsConstants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
