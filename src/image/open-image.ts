import { closeSync } from 'node:fs';
import type { BlockSizes } from '../protocol/export-info.js';
import { PAYLOAD_BYTES_MAX } from '../protocol/limits.js';
import { CACHE_MODES, type CacheMode, type DetectZeroes, type DiscardMode } from './cache-modes.js';
import { choosePart, type PartChoice } from './choose-part.js';
import { DetectZeroesImage } from './detect-zeroes.js';
import { DiscardIgnoredImage } from './discard-ignored.js';
import { type FileCalls, fileCalls } from './file-calls.js';
import { formatImage } from './format-image.js';
import { GuessedRawImage } from './guessed-raw.js';
import { type Image, ZERO_MAY_PUNCH } from './image.js';
import { ImageChain } from './image-chain.js';
import { guessFormat, type ImageFormat } from './image-format.js';
import { type LockPlan, layerLockPlan, rawLockPlan } from './lock.js';
import type { GivenFiles, OpenFile } from './open-file.js';
import { openLocked } from './open-locked.js';
import { rawSizeBytes } from './open-raw.js';
import { type ImagePart, PartImage } from './part.js';
import type { Qcow2Handle } from './qcow2/handle.js';
import type { SnapshotChoice } from './qcow2/load-snapshot.js';
import type { RawHandle } from './raw.js';
import { OVERLAY, openTemporaryOverlay, overlayFolder } from './temporary-overlay.js';
import { type ImageTraits, isRotational } from './traits.js';
import { UnsafeImage } from './unsafe.js';
import { WritethroughImage } from './writethrough.js';

/** What disks and file systems work in. */
const preferredBytes = 4096;

/** How an image is worked with. */
interface ImageModes {
  readonly cache: CacheMode;
  readonly discard: DiscardMode;
  readonly detectZeroes: DetectZeroes;
  /** It is raw, and nobody said so. */
  readonly guessed: boolean;
  /** Absent: all of it. */
  readonly part?: ImagePart;
}

/** What a worker makes its Image of; it crosses threads. */
export type ImageHandle = (RawHandle & ImageModes) | (Qcow2Handle & ImageModes);

/** An image that is open and locked, until `close`. */
export interface OpenedImage {
  readonly handle: ImageHandle;
  readonly formatName: ImageFormat;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly blockSizes: BlockSizes;
  readonly traits: ImageTraits;
  /** What the user should know about it, a sentence each. */
  readonly notices: readonly string[];
  /** The files that it is made of, for another process to open it by (OpenOptions.given). */
  readonly files: GivenFiles;
  /** With no worker left: what is in memory reaches the files, so that another opening finds it. @throws ImageError 'system' */
  settle(): void;
  /** Once no worker is left. */
  close(): void;
}

export interface OpenOptions {
  /** Absent: what the first bytes say, raw if they say nothing. */
  readonly format?: ImageFormat | undefined;
  readonly readOnly: boolean;
  /** Of a qcow2 image: its disk as it was when this snapshot was taken; for reading only. */
  readonly snapshot?: SnapshotChoice | undefined;
  /** The image is only read: what is written goes to a temporary overlay, which is gone when the image is closed. */
  readonly temporary?: boolean | undefined;
  /** It is behind another image. */
  readonly mayBeEmpty?: boolean;
  /** Opened although another program forbids it; for reading only. */
  readonly forceShare?: boolean | undefined;
  /** Absent: all of the disk. */
  readonly part?: PartChoice | undefined;
  /** The device that the image is to become ('nbd0'); it must not lie on it. */
  readonly becomes?: string;
  /** Absent: 'writeback'. */
  readonly cache?: CacheMode | undefined;
  /** Absent: 'unmap'. */
  readonly discard?: DiscardMode | undefined;
  /** Absent: 'off'. With 'unmap', storage is given back only if `discard` lets it be. */
  readonly detectZeroes?: DetectZeroes | undefined;
  /** Its files, and those of its temporary overlay, that the process before has opened by their paths, and locked. */
  readonly given?: GivenFiles | undefined;
}

/**
 * Opens an image on the main thread: looks what it is, takes the locks, opens what is behind it. Nothing is made that is
 * not there.
 *
 * @throws ImageError, or KernelError 'system' on a file system without locks
 */
export function openImage(path: string, options: OpenOptions): OpenedImage {
  const { readOnly, becomes, temporary = false, forceShare = false, given } = options;
  const { cache = 'writeback', discard = 'unmap', detectZeroes = 'off' } = options;
  const chain = new ImageChain({ direct: CACHE_MODES[cache].direct, forceShare, becomes, given });
  chain.refuseOwnDevice(path);
  if (temporary) chain.refuseOwnDevice(overlayFolder());
  const { file, format } = openAsFormat(path, options);
  const layer = orClosed(
    () => chain.open(path, file, format, readOnly || temporary, options.snapshot),
    () => closeSync(file.fd),
  );
  const { handle, notices, punches, settle, close } = temporary
    ? orClosed(() => openTemporaryOverlay(path, layer, given), layer.close)
    : layer;
  if (temporary) chain.files.set(OVERLAY, handle.fd);
  const writesImage = !readOnly && !temporary;
  const guessed = writesImage && format === 'raw' && options.format === undefined;
  // Nobody can ask for a temporary overlay after a crash.
  const whole = { ...handle, guessed, cache: temporary ? 'unsafe' : cache, discard, detectZeroes } as const;
  const part = orClosed(() => partOf(path, whole, options.part), close);
  return {
    handle: part === undefined ? whole : { ...whole, part },
    formatName: format,
    sizeBytes: part?.sizeBytes ?? handle.sizeBytes,
    readOnly,
    blockSizes: {
      minimum: 1,
      preferred: Math.max(preferredBytes, handle.direct?.blockBytes ?? 0),
      maximumPayload: PAYLOAD_BYTES_MAX,
    },
    traits: { rotational: isRotational(path), fastZero: punches, trim: punches && discard === 'unmap' },
    files: chain.files,
    settle,
    notices: [...notices, ...(writesImage ? writingNotices(path, guessed, cache) : [])],
    close,
  };
}

function partOf(path: string, handle: ImageHandle, choice: PartChoice | undefined): ImagePart | undefined {
  if (choice === undefined) return undefined;
  const image = imageFrom(handle);
  try {
    return choosePart(path, image, choice);
  } finally {
    image.close();
  }
}

function orClosed<T>(open: () => T, close: () => void): T {
  try {
    return open();
  } catch (error) {
    close();
    throw error;
  }
}

/**
 * Opens a file and locks it as an image of its format is; the fd is the caller's.
 *
 * @throws ImageError, or KernelError 'system' on a file system without locks
 */
export function openAsFormat(
  path: string,
  {
    format: asked,
    readOnly,
    temporary = false,
    forceShare = false,
    mayBeEmpty = false,
    given,
  }: Pick<OpenOptions, 'format' | 'readOnly' | 'temporary' | 'forceShare' | 'mayBeEmpty' | 'given'>,
  advice?: string,
): { readonly file: OpenFile; readonly format: ImageFormat } {
  let format: ImageFormat = 'raw';
  const plan = (opened: OpenFile) => {
    format = asked ?? guessFormat(path, opened);
    return temporary ? layerLockPlan(true) : lockPlan(format, opened, readOnly, forceShare);
  };
  const lockOptions = { force: forceShare && readOnly, given, advice, mayBeEmpty };
  return { file: openLocked(path, readOnly || temporary, plan, lockOptions), format };
}

/** The image in a worker, of the handle that the main thread opened. */
export function imageFrom(handle: ImageHandle, calls: FileCalls = fileCalls): Image {
  const { cache, discard, detectZeroes, guessed, part } = handle;
  let image = formatImage(handle, calls);
  if (guessed && handle.format === 'raw') image = new GuessedRawImage(image, handle);
  const { durable } = CACHE_MODES[cache];
  if (durable === 'always') image = new WritethroughImage(image);
  if (durable === 'never') image = new UnsafeImage(image);
  if (discard === 'ignore') image = new DiscardIgnoredImage(image);
  if (detectZeroes !== 'off') image = new DetectZeroesImage(image, detectZeroes === 'unmap' ? ZERO_MAY_PUNCH : 0);
  return part === undefined ? image : new PartImage(image, part);
}

function lockPlan(format: ImageFormat, { fileBytes }: OpenFile, readOnly: boolean, forceShare: boolean): LockPlan {
  const resizable = fileBytes < rawSizeBytes(fileBytes);
  const plan = format === 'raw' ? rawLockPlan(readOnly, resizable) : layerLockPlan(readOnly);
  return forceShare && readOnly ? { uses: plan.uses, unshared: [] } : plan;
}

function writingNotices(path: string, guessed: boolean, cache: CacheMode): readonly string[] {
  const notices: string[] = [];
  if (guessed) {
    notices.push(
      `${path} is taken for raw, and writes that would make it look like another format are refused; say -f raw if it is`,
    );
  }
  if (CACHE_MODES[cache].durable === 'never') {
    notices.push(`${path} is opened as unsafe: a flush is answered at once, and a crash of this machine may ruin it`);
  }
  return notices;
}
