import { closeSync } from 'node:fs';
import type { DirectFile } from './direct-io.js';
import { ImageError } from './errors.js';
import { byWhom } from './in-use.js';
import { isWrittenByAnother } from './lock.js';
import { openDirect } from './open-direct.js';
import type { OpenFile } from './open-file.js';
import type { RawHandle } from './raw.js';
import { HAS_HOLES, newSharedFields } from './shared-layout.js';
import { type ZeroingAbility, zeroingAbility } from './traits.js';

const sectorBytes = 512;
const NO_ZEROING: ZeroingAbility = { punches: false, slowZeroRange: false, zeroBlockBytes: 1 };

/** An image of any format, or what is behind one, opened. */
export interface OpenedLayer<Handle> {
  readonly handle: Handle;
  /** It can be zeroed, and its storage given back, without zeroes being written. */
  readonly punches: boolean;
  /** What the user should know about it, a sentence each. */
  readonly notices: readonly string[];
  /** With no worker left: what is in memory reaches the file, so that another opening finds it. @throws ImageError 'system' */
  settle(): void;
  close(): void;
}

/** A raw image of `fileBytes` is shown in whole sectors. */
export function rawSizeBytes(fileBytes: number): number {
  return Math.ceil(fileBytes / sectorBytes) * sectorBytes;
}

/** Makes a raw image of a file that is open and locked; what it opens itself, `close` closes, `file.fd` too. */
export function openRaw(
  path: string,
  file: OpenFile,
  options: { readonly readOnly: boolean; readonly direct: boolean },
): OpenedLayer<RawHandle> {
  const { fd, fileBytes } = file;
  const { readOnly } = options;
  const sizeBytes = rawSizeBytes(fileBytes);
  if (!Number.isSafeInteger(sizeBytes)) {
    throw new ImageError('not-an-image', `${path} is larger than ${Number.MAX_SAFE_INTEGER} bytes`);
  }
  const notices: string[] = [];
  if (fileBytes < sizeBytes) notices.push(sizeNotice(path, fileBytes, sizeBytes, readOnly));
  if (readOnly && isWrittenByAnother(fd)) {
    notices.push(`${path} is written to${byWhom(file)}: what is read may not fit together`);
  }
  const direct: DirectFile | undefined = options.direct ? openDirect(path, file, sizeBytes, readOnly) : undefined;
  const { punches, ...zeroing } = readOnly ? NO_ZEROING : zeroingAbility(file);
  const shared = newSharedFields();
  if (file.stat.isFile() && file.stat.blocks * sectorBytes < fileBytes) Atomics.store(shared, HAS_HOLES, 1);
  return {
    handle: { format: 'raw', fd, direct, fileBytes, sizeBytes, readOnly, ...zeroing, shared },
    punches,
    notices,
    settle: () => {},
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
