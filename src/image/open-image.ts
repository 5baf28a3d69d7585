import { closeSync, readSync } from 'node:fs';
import type { BlockSizes } from '../protocol/export-info.js';
import { PAYLOAD_BYTES_MAX } from '../protocol/limits.js';
import { imageLiesOn } from './backing-device.js';
import { CACHE_MODES, type CacheMode, type DetectZeroes, type DiscardMode } from './cache-modes.js';
import { DetectZeroesImage } from './detect-zeroes.js';
import { DirectCalls } from './direct-io.js';
import { DiscardIgnoredImage } from './discard-ignored.js';
import { ImageError, reasonOf } from './errors.js';
import { type FileCalls, fileCalls } from './file-calls.js';
import { foreignFormat, MAGIC_BYTES } from './format-magic.js';
import { GuessedRawImage } from './guessed-raw.js';
import { type Image, ZERO_MAY_PUNCH } from './image.js';
import { byWhom, inUseError } from './in-use.js';
import { isWrittenByAnother, type LockConflict, rawLockPlan, takeLocks } from './lock.js';
import { openDirect } from './open-direct.js';
import { type OpenFile, openFile } from './open-file.js';
import { type RawHandle, RawImage } from './raw.js';
import { HAS_HOLES, newSharedFields } from './shared-layout.js';
import { type ImageTraits, isRotational, type ZeroingAbility, zeroingAbility } from './traits.js';
import { UnsafeImage } from './unsafe.js';
import { WritethroughImage } from './writethrough.js';

const sectorBytes = 512;
/** What disks and file systems work in. */
const preferredBytes = 4096;
const NO_ZEROING: ZeroingAbility = { punches: false, slowZeroRange: false };

/** How an image is worked with. */
interface ImageModes {
  readonly cache: CacheMode;
  readonly discard: DiscardMode;
  readonly detectZeroes: DetectZeroes;
}

/** What a worker makes its Image of; it crosses threads. */
export interface ImageHandle extends RawHandle, ImageModes {
  /** Nobody said that it is raw. */
  readonly guessed: boolean;
}

/** An image that is open and locked, until `close`. */
export interface OpenedImage {
  readonly handle: ImageHandle;
  readonly formatName: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly blockSizes: BlockSizes;
  readonly traits: ImageTraits;
  /** What the user should know about it, a sentence each. */
  readonly notices: readonly string[];
  /** Once no worker is left. */
  close(): void;
}

export interface OpenOptions {
  /** Absent: raw, unless the first bytes are another format's, which is refused. */
  readonly format?: 'raw' | undefined;
  readonly readOnly: boolean;
  /** Opened although another program forbids it; for reading only. */
  readonly forceShare?: boolean | undefined;
  /** The device that the image is to become ('nbd0'); it must not lie on it. */
  readonly becomes?: string;
  /** Absent: 'writeback'. */
  readonly cache?: CacheMode | undefined;
  /** Absent: 'unmap'. */
  readonly discard?: DiscardMode | undefined;
  /** Absent: 'off'. With 'unmap', storage is given back only if `discard` lets it be. */
  readonly detectZeroes?: DetectZeroes | undefined;
}

/**
 * Opens an image on the main thread: looks what it is, takes the locks. Nothing is made that is not there.
 *
 * @throws ImageError, or KernelError 'system' on a file system without locks
 */
export function openImage(path: string, options: OpenOptions): OpenedImage {
  const { format, readOnly, becomes } = options;
  if (becomes !== undefined && imageLiesOn(path, becomes)) {
    throw new ImageError('own-device', `${path} lies on /dev/${becomes}, the device that it was to become`);
  }
  const file = openFile(path, readOnly);
  let opened: OpenedImage | LockConflict;
  try {
    if (format === undefined) refuseForeign(path, file);
    opened = openRaw(path, file, options);
  } catch (error) {
    closeSync(file.fd);
    throw error;
  }
  if (!('permission' in opened)) return opened;
  closeSync(file.fd); // our own locks are not to be named below
  throw inUseError(path, file, opened);
}

/** The image in a worker, of the handle that the main thread opened. */
export function imageFrom(handle: ImageHandle, calls: FileCalls = fileCalls): Image {
  const { direct, cache, discard, detectZeroes, guessed } = handle;
  let image: Image = new RawImage(handle, direct === undefined ? calls : new DirectCalls({ ...handle, direct }, calls));
  const { durable } = CACHE_MODES[cache];
  if (durable === 'always') image = new WritethroughImage(image);
  if (durable === 'never') image = new UnsafeImage(image);
  if (discard === 'ignore') image = new DiscardIgnoredImage(image);
  if (detectZeroes !== 'off') image = new DetectZeroesImage(image, detectZeroes === 'unmap' ? ZERO_MAY_PUNCH : 0);
  return guessed ? new GuessedRawImage(image) : image;
}

function openRaw(path: string, file: OpenFile, options: OpenOptions): OpenedImage | LockConflict {
  const { fd, fileBytes } = file;
  const {
    readOnly,
    format,
    forceShare = false,
    cache = 'writeback',
    discard = 'unmap',
    detectZeroes = 'off',
  } = options;
  const guessed = format === undefined;
  const sizeBytes = Math.ceil(fileBytes / sectorBytes) * sectorBytes;
  if (!Number.isSafeInteger(sizeBytes)) {
    throw new ImageError('not-an-image', `${path} is larger than ${Number.MAX_SAFE_INTEGER} bytes`);
  }
  const conflict = takeLocks(fd, rawLockPlan(readOnly, fileBytes < sizeBytes));
  if (conflict !== undefined && !(forceShare && readOnly)) return conflict;

  const notices: string[] = [];
  if (fileBytes < sizeBytes) notices.push(sizeNotice(path, fileBytes, sizeBytes, readOnly));
  if (readOnly && isWrittenByAnother(fd)) {
    notices.push(`${path} is written to${byWhom(file)}: what is read may not fit together`);
  }
  if (guessed && !readOnly) {
    notices.push(
      `${path} is taken for raw, and writes that would make it look like another format are refused; say -f raw if it is`,
    );
  }
  if (CACHE_MODES[cache].durable === 'never' && !readOnly) {
    notices.push(`${path} is opened as unsafe: a flush is answered at once, and a crash of this machine may ruin it`);
  }
  const direct = CACHE_MODES[cache].direct ? openDirect(path, file, sizeBytes, readOnly) : undefined;
  const { punches, slowZeroRange } = readOnly ? NO_ZEROING : zeroingAbility(file);
  const shared = newSharedFields();
  if (file.stat.isFile() && file.stat.blocks * sectorBytes < fileBytes) Atomics.store(shared, HAS_HOLES, 1);
  const raw = { format: 'raw', fd, direct, fileBytes, sizeBytes, readOnly, slowZeroRange } as const;
  return {
    handle: { ...raw, guessed, cache, discard, detectZeroes, shared },
    formatName: 'raw',
    sizeBytes,
    readOnly,
    blockSizes: {
      minimum: 1,
      preferred: Math.max(preferredBytes, direct?.blockBytes ?? 0),
      maximumPayload: PAYLOAD_BYTES_MAX,
    },
    traits: { rotational: isRotational(path), fastZero: punches, trim: punches && discard === 'unmap' },
    notices,
    close: () => {
      if (direct !== undefined) closeSync(direct.fd);
      closeSync(fd);
    },
  };
}

function sizeNotice(path: string, fileBytes: number, sizeBytes: number, readOnly: boolean): string {
  const growth = readOnly ? '' : ', and a write there makes the file so large';
  return `${path} has ${fileBytes} bytes, no multiple of ${sectorBytes}: it is shown as ${sizeBytes}; the rest reads as zeroes${growth}`;
}

/** A raw image may hold any bytes; but one that looks like another format is hardly meant to be a disk as it stands. */
function refuseForeign(path: string, { fd, fileBytes }: OpenFile): void {
  const head = readPiece(path, fd, 0);
  const tail = fileBytes < MAGIC_BYTES ? new Uint8Array(0) : readPiece(path, fd, fileBytes - MAGIC_BYTES);
  const format = foreignFormat(head, tail);
  if (format === undefined) return;
  throw new ImageError(
    'wrong-format',
    `${path} is a ${format} image, and only raw images can be opened; use -f raw if its bytes really are the disk's, or make a raw image of it with: qemu-img convert -O raw`,
  );
}

function readPiece(path: string, fd: number, offsetBytes: number): Uint8Array {
  const piece = new Uint8Array(MAGIC_BYTES);
  try {
    return piece.subarray(0, readSync(fd, piece, 0, MAGIC_BYTES, offsetBytes));
  } catch (cause) {
    throw new ImageError('system', `cannot read ${path}: ${reasonOf(cause)}`, { cause });
  }
}
