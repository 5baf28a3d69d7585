import { closeSync } from 'node:fs';
import { invariant } from '../../base/invariant.js';
import type { DirectFile } from '../direct-io.js';
import { ImageError } from '../errors.js';
import { openDirect } from '../open-direct.js';
import type { OpenFile } from '../open-file.js';
import type { OpenedLayer } from '../open-raw.js';
import { newSharedFields } from '../shared-layout.js';
import { type Geometry, geometryOf } from './geometry.js';
import type { LayerHandle, Qcow2Handle } from './handle.js';
import { type Header, readHeader } from './header.js';
import { headerOfSnapshot, type SnapshotChoice } from './load-snapshot.js';
import { newQcow2Memory } from './memory.js';
import { finishWriting, prepareWriting, withRefcounts } from './open-writable.js';
import { readAt } from './read-at.js';

const ENTRY_BYTES = 8;

/** Opens the other files that an image is made of, by the names that it has for them. */
export interface OtherFiles {
  backing(name: string, format: string | undefined): OpenedLayer<LayerHandle>;
  data(name: string): OpenFile;
}

export interface Qcow2Options {
  readonly readOnly: boolean;
  readonly direct: boolean;
  /** The disk is what it was then; for reading only. */
  readonly snapshot?: SnapshotChoice | undefined;
}

/** Makes a qcow2 image of a file that is open and locked; what it opens itself, `close` closes, `file.fd` too. */
export function openQcow2(
  path: string,
  locked: OpenFile,
  options: Qcow2Options,
  others: OtherFiles,
): OpenedLayer<Qcow2Handle> {
  const { fd } = locked;
  const { readOnly, snapshot } = options;
  invariant(snapshot === undefined || readOnly, 'a snapshot is read only');
  const written = readHeader(path, locked);
  const { file, header } = readOnly
    ? { file: locked, header: snapshot === undefined ? written : headerOfSnapshot(path, locked, written, snapshot) }
    : withRefcounts(path, locked, written);
  checkPlaces(path, header, file.fileBytes);
  const geometry = geometryOf(header);
  const memory = newQcow2Memory(
    geometry,
    readOnly,
    (header.refcountTableClusters * geometry.clusterBytes) / ENTRY_BYTES,
  );
  new Uint8Array(memory.l1.buffer).set(readAt(path, fd, header.l1OffsetBytes, header.l1Entries * ENTRY_BYTES));
  prepareWriting(path, file, header, geometry, memory);

  const closers: (() => void)[] = [];
  try {
    const dataFile = openDataFile(path, header, others);
    if (dataFile !== undefined) closers.push(() => closeSync(dataFile.fd));
    const direct: DirectFile | undefined = options.direct ? openDirect(path, dataFile ?? file, 0, readOnly) : undefined;
    if (direct !== undefined) closers.push(() => closeSync(direct.fd));
    if (direct !== undefined) refuseSmallClusters(path, geometry, direct);
    const backing =
      header.backingName === undefined ? undefined : others.backing(header.backingName, header.backingFormat);
    if (backing !== undefined) closers.push(() => backing.close());
    const handle: Qcow2Handle = {
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
    };
    const settle = () => finishWriting(path, handle);
    return {
      handle,
      punches: !readOnly,
      notices: [...noticesOf(path, header), ...(backing?.notices ?? [])],
      settle,
      close: () => {
        try {
          settle();
        } finally {
          for (const close of closers) close();
          closeSync(fd);
        }
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

/** A block that is changed in part is read and written whole: what else lies in it would be lost. */
function refuseSmallClusters(path: string, { clusterBytes }: Geometry, { blockBytes }: DirectFile): void {
  if (clusterBytes % blockBytes === 0) return;
  throw new ImageError(
    'unsupported',
    `${path} has clusters of ${clusterBytes} bytes, and what it lies on has blocks of ${blockBytes}: it cannot be opened for direct I/O (O_DIRECT); choose a cache mode that uses the page cache`,
  );
}

function openDataFile(path: string, { hasDataFile, dataFileName }: Header, others: OtherFiles): OpenFile | undefined {
  if (!hasDataFile) return undefined;
  if (dataFileName !== undefined && dataFileName !== '') return others.data(dataFileName);
  throw new ImageError('damaged', `${path} is a damaged qcow2 image: it does not name its data file`);
}

function noticesOf(path: string, { isCorrupt }: Header): readonly string[] {
  return isCorrupt ? [`${path} is marked as corrupt: what is read may be wrong; see: tsnbd check ${path}`] : [];
}
