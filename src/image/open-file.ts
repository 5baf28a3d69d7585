import { closeSync, constants as fsConstants, fstatSync, openSync, readFileSync, type Stats, statSync } from 'node:fs';
import { deviceNumberText } from '../kernel/proc-tables.js';
import { ImageError, reasonOf } from './errors.js';
import { pathBytes } from './file-name.js';

/** A regular file or a block device, open. */
export interface OpenFile {
  readonly fd: number;
  readonly stat: Stats;
  /** Not 0, unless it may be. */
  readonly fileBytes: number;
}

const sectorBytes = 512;
/** What to do where an image cannot be opened for writing. */
const READ_ONLY_ADVICE = '-r opens it for reading only';

/** Files that another process has opened, and locked, for this one: their fds, by the paths that it knew them by. */
export type GivenFiles = ReadonlyMap<string, number>;

/**
 * Opens what is at `path`, if it can be an image; makes nothing, and opens nothing else: to open a pipe or a tape has
 * effects of its own. Of files that were `given` it is one of them, whatever is at its path now. `advice` is for who
 * cannot open it for writing. One that `mayBeEmpty` is behind another image, which reads as zeroes where this one has ended.
 *
 * @throws ImageError
 */
export function openFile(
  path: string,
  readOnly: boolean,
  {
    given,
    advice = READ_ONLY_ADVICE,
    mayBeEmpty = false,
  }: {
    readonly given?: GivenFiles | undefined;
    readonly advice?: string | undefined;
    readonly mayBeEmpty?: boolean | undefined;
  } = {},
): OpenFile {
  if (given !== undefined) return givenFile(path, given, mayBeEmpty);
  const known = lookAt(path);
  if (known.isBlockDevice() && !readOnly && isReadOnlyDevice(known)) {
    throw new ImageError('read-only', `${path} is a read-only device; ${advice}`);
  }
  const fd = open(path, readOnly, known, advice);
  try {
    const stat = fstatSync(fd);
    if (stat.dev !== known.dev || stat.ino !== known.ino) {
      throw new ImageError('system', `cannot open ${path}: it was replaced meanwhile`);
    }
    return { fd, stat, fileBytes: fileBytes(path, stat, mayBeEmpty) };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function givenFile(path: string, given: GivenFiles, mayBeEmpty: boolean): OpenFile {
  const fd = given.get(path);
  if (fd === undefined) throw new ImageError('system', `${path} was not opened before`);
  const stat = fstatSync(fd);
  return { fd, stat, fileBytes: fileBytes(path, stat, mayBeEmpty) };
}

/** The same file, as long as it is now. */
export function lookedAtAgain(file: OpenFile): OpenFile {
  const stat = fstatSync(file.fd);
  return stat.isFile() ? { ...file, stat, fileBytes: stat.size } : file;
}

function lookAt(path: string): Stats {
  let stat: Stats;
  try {
    stat = statSync(pathBytes(path));
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw new ImageError('missing', `${path} does not exist`, { cause });
    throw new ImageError('system', `cannot open ${path}: ${reasonOf(cause)}`, { cause });
  }
  if (stat.isFile() || stat.isBlockDevice()) return stat;
  throw new ImageError('not-an-image', `${path} is ${kindOf(stat)}, neither a file nor a block device`);
}

function kindOf(stat: Stats): string {
  if (stat.isDirectory()) return 'a folder';
  if (stat.isCharacterDevice()) return 'a character device';
  return stat.isFIFO() ? 'a pipe' : 'a socket';
}

/**
 * A block device is opened for writing with O_EXCL: refused while it or a partition is mounted, swap or part of another
 * device, and the kernel then lets nobody mount it while we write. O_NONBLOCK: a file that became a pipe since is not
 * waited for; it has no effect on reads and writes of a file.
 */
function open(path: string, readOnly: boolean, known: Stats, advice: string): number {
  const { O_RDONLY, O_RDWR, O_NONBLOCK, O_EXCL } = fsConstants;
  const access = readOnly ? O_RDONLY : O_RDWR;
  const extra = known.isFile() ? O_NONBLOCK : readOnly ? 0 : O_EXCL;
  try {
    return openSync(pathBytes(path), access | extra);
  } catch (cause) {
    throw openError(path, readOnly, advice, cause);
  }
}

function openError(path: string, readOnly: boolean, advice: string, cause: unknown): ImageError {
  const { code } = cause as NodeJS.ErrnoException;
  if (code === 'EBUSY') {
    return new ImageError(
      'in-use',
      `${path} is in use: mounted, as swap, in another device, or open to one program alone; ${advice}`,
      { cause },
    );
  }
  if (!readOnly && (code === 'EACCES' || code === 'EROFS' || code === 'EPERM' || code === 'ETXTBSY')) {
    const message = `cannot open ${path} for writing: ${reasonOf(cause)}; ${advice}`;
    return new ImageError('read-only', message, { cause });
  }
  return new ImageError('system', `cannot open ${path}: ${reasonOf(cause)}`, { cause });
}

function fileBytes(path: string, stat: Stats, mayBeEmpty: boolean): number {
  const bytes = stat.isBlockDevice() ? Number(deviceAttribute(stat, 'size')) * sectorBytes : stat.size;
  if (bytes === 0 && !mayBeEmpty) throw new ImageError('not-an-image', `${path} is empty (0 bytes)`);
  return bytes;
}

function isReadOnlyDevice(stat: Stats): boolean {
  return deviceAttribute(stat, 'ro').trim() === '1';
}

/** By sysfs: node:fs has no call that tells the size of a block device. */
function deviceAttribute(stat: Stats, attribute: string): string {
  const path = `/sys/dev/block/${deviceNumberText(stat.rdev)}/${attribute}`;
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new ImageError('system', `cannot read ${path}: ${reasonOf(cause)}`, { cause });
  }
}
