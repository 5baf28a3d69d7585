import { closeSync, readSync } from 'node:fs';
import type { DirectFile } from '../direct-io.js';
import { ImageError, reasonOf } from '../errors.js';
import { openDirect } from '../open-direct.js';
import type { OpenFile } from '../open-file.js';
import type { OpenedLayer } from '../open-raw.js';
import { newSharedFields } from '../shared-layout.js';
import { geometryOf } from './geometry.js';
import type { LayerHandle, Qcow2Handle } from './handle.js';
import { HEADER_BYTES_MAX, type Header, parseHeader } from './header.js';
import { newQcow2Memory } from './memory.js';

const ENTRY_BYTES = 8;

/** Opens the other files that an image is made of, by the names that it has for them. */
export interface OtherFiles {
  backing(name: string, format: string | undefined): OpenedLayer<LayerHandle>;
  data(name: string): OpenFile;
}

/** Makes a qcow2 image of a file that is open and locked; what it opens itself, `close` closes, `file.fd` too. */
export function openQcow2(
  path: string,
  file: OpenFile,
  options: { readonly readOnly: boolean; readonly direct: boolean },
  others: OtherFiles,
): OpenedLayer<Qcow2Handle> {
  const { fd } = file;
  const { readOnly } = options;
  const header = parseHeader(path, readAt(path, fd, 0, Math.min(HEADER_BYTES_MAX, file.fileBytes)));
  checkPlaces(path, header, file.fileBytes);
  const geometry = geometryOf(header);
  const memory = newQcow2Memory(geometry);
  new Uint8Array(memory.l1.buffer).set(readAt(path, fd, header.l1OffsetBytes, header.l1Entries * ENTRY_BYTES));

  const closers: (() => void)[] = [];
  try {
    const dataFile = openDataFile(path, header, others);
    if (dataFile !== undefined) closers.push(() => closeSync(dataFile.fd));
    const direct: DirectFile | undefined = options.direct ? openDirect(path, dataFile ?? file, 0, readOnly) : undefined;
    if (direct !== undefined) closers.push(() => closeSync(direct.fd));
    const backing =
      header.backingName === undefined ? undefined : others.backing(header.backingName, header.backingFormat);
    if (backing !== undefined) closers.push(() => backing.close());
    return {
      handle: {
        format: 'qcow2',
        fd,
        dataFd: dataFile?.fd ?? fd,
        direct,
        geometry,
        memory,
        shared: newSharedFields(),
        sizeBytes: header.sizeBytes,
        readOnly,
        backing: backing?.handle,
      },
      punches: !readOnly,
      notices: [...noticesOf(path, header), ...(backing?.notices ?? [])],
      close: () => {
        for (const close of closers) close();
        closeSync(fd);
      },
    };
  } catch (error) {
    for (const close of closers) close();
    throw error;
  }
}

/** A table that the file does not hold as a whole is not one. */
function checkPlaces(path: string, header: Header, fileBytes: number): void {
  if (header.l1OffsetBytes + header.l1Entries * ENTRY_BYTES > fileBytes) {
    throw new ImageError('damaged', `${path} is a damaged qcow2 image: its L1 table lies behind its end`);
  }
}

function openDataFile(path: string, { hasDataFile, dataFileName }: Header, others: OtherFiles): OpenFile | undefined {
  if (!hasDataFile) return undefined;
  if (dataFileName !== undefined && dataFileName !== '') return others.data(dataFileName);
  throw new ImageError('damaged', `${path} is a damaged qcow2 image: it does not name its data file`);
}

function noticesOf(path: string, { isCorrupt }: Header): readonly string[] {
  return isCorrupt ? [`${path} is marked as corrupt: what is read may be wrong; see qemu-img check -r all`] : [];
}

function readAt(path: string, fd: number, offsetBytes: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  try {
    for (let done = 0; done < length; ) {
      const got = readSync(fd, bytes, done, length - done, offsetBytes + done);
      if (got === 0) throw new ImageError('damaged', `${path} is a damaged qcow2 image: it ends within a table`);
      done += got;
    }
  } catch (cause) {
    if (cause instanceof ImageError) throw cause;
    throw new ImageError('system', `cannot read ${path}: ${reasonOf(cause)}`, { cause });
  }
  return bytes;
}
