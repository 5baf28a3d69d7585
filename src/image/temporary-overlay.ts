import {
  closeSync,
  constants as fsConstants,
  fstatSync,
  ftruncateSync,
  openSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { ImageError, reasonOf } from './errors.js';
import type { ImageFormat } from './image-format.js';
import { type GivenFiles, type OpenFile, openFile } from './open-file.js';
import type { OpenedLayer } from './open-raw.js';
import { emptyOverlay } from './qcow2/empty-image.js';
import type { LayerHandle, Qcow2Handle } from './qcow2/handle.js';
import { openQcow2 } from './qcow2/open-qcow2.js';

/** Where files go that may be large and need not be in memory; QEMU has the same. */
const DEFAULT_FOLDER = '/var/tmp';
const PRIVATE_MODE = 0o600;

/** What a temporary overlay's file is called among those that one process gives another. */
export const OVERLAY = 'temporary overlay';

/** The folder of temporary overlays. */
export function overlayFolder(): string {
  const { TMPDIR } = process.env;
  return TMPDIR === undefined || TMPDIR === '' ? DEFAULT_FOLDER : TMPDIR;
}

/**
 * A qcow2 image in a file without a name, on an image that was opened for reading only: what is written goes there, and
 * is gone when the last fd of it is, however the process ends; or the one that was `given`. `below` stays the caller's where this throws.
 *
 * @throws ImageError 'system'
 */
export function openTemporaryOverlay(
  path: string,
  below: OpenedLayer<LayerHandle>,
  given?: GivenFiles,
): OpenedLayer<Qcow2Handle> {
  const name = `the temporary overlay of ${path}`;
  const file =
    given === undefined
      ? makeFile(name, below.handle.sizeBytes, { name: basename(path), format: below.handle.format })
      : openFile(OVERLAY, false, { given });
  try {
    const layer = openQcow2(
      name,
      file,
      { readOnly: false, direct: false },
      {
        backing: () => ({ ...below, close: () => {} }),
        data: () => file,
      },
    );
    // Nothing of it need reach a disk.
    const close = () => {
      closeSync(file.fd);
      below.close();
    };
    return { ...layer, close };
  } catch (error) {
    closeSync(file.fd);
    throw error;
  }
}

/** Its name is gone before anything is written: a killed process leaves nothing. */
function makeFile(name: string, sizeBytes: number, backing: { name: string; format: ImageFormat }): OpenFile {
  const { O_RDWR, O_CREAT, O_EXCL } = fsConstants;
  const path = join(overlayFolder(), `tsnbd-${process.getBuiltinModule('node:crypto').randomUUID()}`);
  const { head, fileBytes } = emptyOverlay(name, sizeBytes, backing);
  let fd: number | undefined;
  try {
    fd = openSync(path, O_RDWR | O_CREAT | O_EXCL, PRIVATE_MODE);
    unlinkSync(path);
    for (let done = 0; done < head.length; ) done += writeSync(fd, head, done, head.length - done, done);
    ftruncateSync(fd, fileBytes);
    return { fd, stat: fstatSync(fd), fileBytes };
  } catch (cause) {
    if (fd !== undefined) closeSync(fd);
    throw new ImageError('system', `cannot make ${name} in ${overlayFolder()}: ${reasonOf(cause)}`, { cause });
  }
}
