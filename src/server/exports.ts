import type { OpenedImage } from '../image/open-image.js';
import type { ReplyStyle } from '../protocol/reply.js';
import { type ExportRules, transmissionFlags } from '../protocol/request-rules.js';
import type { ExportDirectory } from '../protocol/server-handshake.js';

/** What a client gets that names no export. */
const DEFAULT_EXPORT = '';

/**
 * What a server offers that serves one image: the default export, also in its list. Where a single client is allowed
 * none is told that it may connect more than once: nbdcopy would, and fail.
 */
export function exportsOf(image: OpenedImage, clientsMax: number | undefined): ExportDirectory {
  const info = {
    name: DEFAULT_EXPORT,
    sizeBytes: image.sizeBytes,
    flags: imageFlags(image, clientsMax !== 1),
    blockSizes: image.blockSizes,
    contexts: ['base:allocation'],
  };
  return { find: (exportName) => (exportName === DEFAULT_EXPORT ? info : undefined), list: () => [info] };
}

/** The transmission flags of an image; DF is the handshake's to add. */
export function imageFlags({ readOnly, traits }: OpenedImage, multiConn: boolean): number {
  return transmissionFlags({ readOnly, multiConn, ...traits });
}

/** What was negotiated for a connection. */
export interface Negotiated {
  /** The transmission flags that the client was told. */
  readonly flags: number;
  readonly replyStyle: ReplyStyle;
  /** How many metadata contexts it chose. */
  readonly statusContexts: number;
}

/** What a connection's requests are checked against. */
export function rulesOf({ sizeBytes, readOnly, blockSizes }: OpenedImage, negotiated: Negotiated): ExportRules {
  return { sizeBytes, readOnly, minimumBlockBytes: blockSizes.minimum, ...negotiated };
}
