import {
  closeSync,
  constants as fsConstants,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  type Stats,
  statSync,
} from 'node:fs';
import { deviceNumberText } from '../kernel/proc-tables.js';
import type { BlockSizes } from '../protocol/export-info.js';
import { PAYLOAD_BYTES_MAX } from '../protocol/limits.js';
import { liesOnDevice } from './backing-device.js';
import { ImageError, reasonOf } from './errors.js';
import { foreignFormat, PROBE_BYTES } from './format-magic.js';
import type { Image } from './image.js';
import { lockRawImage } from './lock.js';
import { type RawHandle, RawImage } from './raw.js';
import { newSharedFields } from './shared-layout.js';

const SECTOR_BYTES = 512;

/** What a worker makes its Image of; it crosses threads. */
export type ImageHandle = RawHandle;

/** An image that is open and locked, until `close`. */
export interface OpenedImage {
  readonly handle: ImageHandle;
  readonly formatName: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly blockSizes: BlockSizes;
  /** What the user should know about it, a sentence each. */
  readonly notices: readonly string[];
  /** Once no worker is left. */
  close(): void;
}

export interface OpenOptions {
  /** Absent: the format is found by the first bytes, and anything but raw is refused. */
  readonly format: 'raw' | undefined;
  readonly readOnly: boolean;
  /** The device that the image is to become ('nbd0'); it must not lie on it. */
  readonly becomes?: string;
}

/**
 * Opens an image on the main thread: looks what it is, takes the locks. Nothing is made that is not there.
 *
 * @throws ImageError, or KernelError 'system' on a file system without locks
 */
export function openImage(path: string, options: OpenOptions): OpenedImage {
  const { fd, stat } = openFile(path, options);
  try {
    return openRaw(fd, stat, path, options);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** The image in a worker, of the handle that the main thread opened. */
export function imageFrom(handle: ImageHandle): Image {
  return new RawImage(handle);
}

function openFile(path: string, { readOnly, becomes }: OpenOptions): { readonly fd: number; readonly stat: Stats } {
  const known = lookAt(path);
  if (becomes !== undefined && liesOnDevice(known, becomes)) {
    throw new ImageError('own-device', `${path} lies on /dev/${becomes}, which it would serve`);
  }
  // O_EXCL on a block device: refused while a file system of this machine is mounted from it. O_NONBLOCK: a file that
  // became a pipe meanwhile is not waited for.
  const exclusive = known.isBlockDevice() && !readOnly ? fsConstants.O_EXCL : 0;
  const flags = (readOnly ? fsConstants.O_RDONLY : fsConstants.O_RDWR) | fsConstants.O_NONBLOCK | exclusive;
  let fd: number;
  try {
    fd = openSync(path, flags);
  } catch (cause) {
    throw openError(path, readOnly, cause);
  }
  const stat = fstatSync(fd);
  if (stat.dev === known.dev && stat.ino === known.ino) return { fd, stat };
  closeSync(fd);
  throw new ImageError('system', `cannot open ${path}: it was replaced meanwhile`);
}

function lookAt(path: string): Stats {
  let stat: Stats;
  try {
    stat = statSync(path);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new ImageError(code === 'ENOENT' ? 'missing' : 'system', `cannot open ${path}: ${reasonOf(cause)}`, {
      cause,
    });
  }
  if (stat.isDirectory()) throw new ImageError('not-an-image', `cannot open ${path}: it is a folder`);
  if (stat.isFile() || stat.isBlockDevice()) return stat;
  throw new ImageError('not-an-image', `cannot open ${path}: it is neither a file nor a block device`);
}

function openError(path: string, readOnly: boolean, cause: unknown): ImageError {
  const { code } = cause as NodeJS.ErrnoException;
  const reason = reasonOf(cause);
  if (code === 'EBUSY') return new ImageError('in-use', `${path} is in use by this machine: ${reason}`, { cause });
  if (!readOnly && (code === 'EACCES' || code === 'EROFS' || code === 'EPERM')) {
    return new ImageError('read-only', `cannot open ${path} for writing: ${reason}; -r opens it for reading only`, {
      cause,
    });
  }
  return new ImageError('system', `cannot open ${path}: ${reason}`, { cause });
}

function openRaw(fd: number, stat: Stats, path: string, { format, readOnly }: OpenOptions): OpenedImage {
  const fileBytes = stat.isBlockDevice() ? blockDeviceBytes(stat) : stat.size;
  if (fileBytes === 0) throw new ImageError('not-an-image', `cannot open ${path}: it is empty`);
  const sizeBytes = Math.ceil(fileBytes / SECTOR_BYTES) * SECTOR_BYTES;
  if (!Number.isSafeInteger(sizeBytes)) throw new ImageError('not-an-image', `cannot open ${path}: it is too large`);
  if (format === undefined) refuseForeign(fd, fileBytes, path);
  const mayGrow = sizeBytes !== fileBytes;
  lockRawImage(fd, path, { readOnly, mayGrow: mayGrow && !readOnly });
  const notices = mayGrow
    ? [
        `${path} has ${fileBytes} bytes, no multiple of ${SECTOR_BYTES}: it is shown as ${sizeBytes}, the rest reads as zeroes`,
      ]
    : [];
  return {
    handle: { format: 'raw', fd, sizeBytes, readOnly, shared: newSharedFields() },
    formatName: 'raw',
    sizeBytes,
    readOnly,
    blockSizes: { minimum: 1, preferred: 4096, maximumPayload: PAYLOAD_BYTES_MAX },
    notices,
    close: () => closeSync(fd),
  };
}

/** A raw image may hold any bytes; but one that looks like another format is hardly meant to be a disk as it stands. */
function refuseForeign(fd: number, fileBytes: number, path: string): void {
  const head = readPiece(fd, 0, path);
  const trailer = readPiece(fd, Math.max(0, fileBytes - PROBE_BYTES), path);
  const found = foreignFormat(head, trailer);
  if (found === undefined) return;
  throw new ImageError(
    'wrong-format',
    `${path} is a ${found} image, which is not supported; -f raw takes its bytes as the disk`,
  );
}

function readPiece(fd: number, offsetBytes: number, path: string): Buffer {
  const piece = Buffer.alloc(PROBE_BYTES);
  try {
    return piece.subarray(0, readSync(fd, piece, 0, PROBE_BYTES, offsetBytes));
  } catch (cause) {
    throw new ImageError('system', `cannot read ${path}: ${reasonOf(cause)}`, { cause });
  }
}

/** By sysfs: node:fs has no call that tells, and st_size of a block device is 0. */
function blockDeviceBytes(stat: Stats): number {
  return Number(readFileSync(`/sys/dev/block/${deviceNumberText(stat.rdev)}/size`, 'utf8')) * SECTOR_BYTES;
}
