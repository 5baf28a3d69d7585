import type { OpenedImage } from '../image/open-image.js';
import { NBD_FLAG_CAN_MULTI_CONN } from '../protocol/constants.js';
import { transmissionFlags } from '../protocol/request-rules.js';
import type { ExportDirectory } from '../protocol/server-handshake.js';

/** What a client gets that names no export. */
const DEFAULT_EXPORT = '';

/**
 * What a server offers that serves one image: the default export, also in its list. Where a single client is allowed
 * none is told that it may connect more than once: nbdcopy would, and fail.
 */
export function exportsOf(image: OpenedImage, clientsMax: number | undefined): ExportDirectory {
  const hidden = clientsMax === 1 ? NBD_FLAG_CAN_MULTI_CONN : 0;
  const info = {
    name: DEFAULT_EXPORT,
    sizeBytes: image.sizeBytes,
    flags: transmissionFlags(image.readOnly) & ~hidden,
    blockSizes: image.blockSizes,
  };
  return { find: (exportName) => (exportName === DEFAULT_EXPORT ? info : undefined), list: () => [info] };
}
