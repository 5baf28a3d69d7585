import type { OpenedImage } from '../image/open-image.js';
import type { ExportInfo } from '../protocol/export-info.js';
import { ALLOCATION_DEPTH, BASE_ALLOCATION } from '../protocol/meta-context.js';
import type { ReplyStyle } from '../protocol/reply.js';
import { type ExportRules, transmissionFlags } from '../protocol/request-rules.js';
import type { ExportDirectory } from '../protocol/server-handshake.js';

/** An image under the name that clients ask for; '' is what one gets that names none. */
export interface ServedExport {
  readonly name: string;
  /** For people who read the server's list. */
  readonly description: string | undefined;
  readonly image: OpenedImage;
}

/** What a server offers, as the handshake sees it, and the image behind each name. */
export interface Exports extends ExportDirectory {
  image(exportName: string): OpenedImage | undefined;
}

/**
 * The exports of a server, all of them in its list, in their order. Where a single client is allowed none is told that it
 * may connect more than once: nbdcopy would, and fail.
 */
export function exportsOf(served: readonly ServedExport[], clientsMax: number | undefined): Exports {
  const images = new Map(served.map(({ name, image }) => [name, image]));
  const infos = new Map(served.map((each) => [each.name, infoOf(each, clientsMax === 1)]));
  return {
    find: (exportName) => infos.get(exportName),
    list: () => [...infos.values()],
    image: (exportName) => images.get(exportName),
  };
}

function infoOf({ name, description, image }: ServedExport, oneClientOnly: boolean): ExportInfo {
  return {
    name,
    ...(description === undefined ? {} : { description }),
    sizeBytes: image.sizeBytes,
    flags: imageFlags(image, !oneClientOnly),
    blockSizes: image.blockSizes,
    contexts: contextsOf(image),
  };
}

/** A raw image is always one image deep. */
function contextsOf({ handle }: OpenedImage): readonly string[] {
  const contexts = handle.format === 'raw' ? [BASE_ALLOCATION] : [BASE_ALLOCATION, ALLOCATION_DEPTH];
  return contexts.map(({ name }) => name);
}

/** The transmission flags of an image; DF is the handshake's to add. */
export function imageFlags({ readOnly, traits }: OpenedImage, multiConn: boolean): number {
  return transmissionFlags({ readOnly, multiConn, ...traits });
}

/** What was negotiated for a connection. */
export interface NegotiatedRules {
  /** The transmission flags that the client was told. */
  readonly flags: number;
  readonly replyStyle: ReplyStyle;
  /** How many metadata contexts it chose. */
  readonly statusContexts: number;
}

/** What a connection's requests are checked against. */
export function rulesOf({ sizeBytes, readOnly, blockSizes }: OpenedImage, negotiated: NegotiatedRules): ExportRules {
  return { sizeBytes, readOnly, minimumBlockBytes: blockSizes.minimum, ...negotiated };
}
