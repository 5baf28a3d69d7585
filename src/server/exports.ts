import type { OpenedImage } from '../image/open-image.js';
import { transmissionFlags } from '../protocol/request-rules.js';
import type { ExportDirectory } from '../protocol/server-handshake.js';

/** What a client gets that names no export. */
const DEFAULT_EXPORT = '';

/** What a server offers that serves one image: the default export, also in its list. */
export function exportsOf(image: OpenedImage): ExportDirectory {
  const info = {
    name: DEFAULT_EXPORT,
    sizeBytes: image.sizeBytes,
    flags: transmissionFlags(image.readOnly),
    blockSizes: image.blockSizes,
  };
  return { find: (exportName) => (exportName === DEFAULT_EXPORT ? info : undefined), list: () => [info] };
}
