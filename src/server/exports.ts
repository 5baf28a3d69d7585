import type { OpenedImage } from '../image/open-image.js';
import { transmissionFlags } from '../protocol/request-rules.js';
import type { ExportDirectory } from '../protocol/server-handshake.js';

/** What a client gets that names no export. */
const DEFAULT_EXPORT = '';

/**
 * What a server offers that serves one image: the default export, also in its list. Where a single client is allowed
 * none is told that it may connect more than once: nbdcopy would, and fail.
 */
export function exportsOf(image: OpenedImage, clientsMax: number | undefined): ExportDirectory {
  const { readOnly } = image;
  const traits = { readOnly, multiConn: clientsMax !== 1, rotational: false, fastZero: false, trim: true };
  const info = {
    name: DEFAULT_EXPORT,
    sizeBytes: image.sizeBytes,
    flags: transmissionFlags(traits),
    blockSizes: image.blockSizes,
  };
  return { find: (exportName) => (exportName === DEFAULT_EXPORT ? info : undefined), list: () => [info] };
}
