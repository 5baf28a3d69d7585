import type { DirectFile } from '../direct-io.js';
import type { RawHandle } from '../raw.js';
import type { SharedFields } from '../shared-layout.js';
import type { Geometry } from './geometry.js';
import type { Qcow2Memory } from './memory.js';

/** A qcow2 image that the main thread opened, with all that it is read from; can be sent to workers. */
export interface Qcow2Handle {
  readonly format: 'qcow2';
  /** The opener's, as all fds here; they stay open until every worker is gone. Tables are read and written by it. */
  readonly fd: number;
  /** Where the data are: `fd`, or an external data file's. */
  readonly dataFd: number;
  /** Of the file where the data are: by which they go past the page cache. */
  readonly direct?: DirectFile | undefined;
  readonly geometry: Geometry;
  readonly memory: Qcow2Memory;
  readonly shared: SharedFields;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly backing: LayerHandle | undefined;
}

/** An image, or what is behind one. */
export type LayerHandle = RawHandle | Qcow2Handle;
