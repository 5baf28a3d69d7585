import type { OpenFile } from '../open-file.js';
import { type Bitmap, bitmapsOf } from './bitmaps.js';
import { COMPATIBLE_LAZY_REFCOUNTS } from './features.js';
import { type Header, readHeader } from './header.js';
import { type Snapshot, snapshotsOf } from './snapshots.js';

/** What there is to say of a qcow2 image by its own file. */
export interface Qcow2Description {
  readonly header: Header;
  readonly lazyRefcounts: boolean;
  readonly snapshots: readonly Snapshot[];
  readonly bitmaps: readonly Bitmap[];
}

/** @throws ImageError 'damaged', 'unsupported' */
export function describeQcow2(path: string, file: OpenFile): Qcow2Description {
  const header = readHeader(path, file);
  return {
    header,
    lazyRefcounts: (header.compatible & COMPATIBLE_LAZY_REFCOUNTS) !== 0n,
    snapshots: snapshotsOf(path, file, header).snapshots,
    bitmaps: bitmapsOf(path, file.fd, header),
  };
}
