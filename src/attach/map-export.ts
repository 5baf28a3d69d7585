import { errnoText } from '../kernel/errno.js';
import type { ServerReply } from '../protocol/awaited-reply.js';
import { NBD_CMD_BLOCK_STATUS, NBD_ERRORS, NBD_STATE_HOLE, NBD_STATE_ZERO } from '../protocol/constants.js';
import { ProtocolError } from '../protocol/errors.js';
import type { OnHandshakeMessage } from '../protocol/handshake-message.js';
import { BASE_ALLOCATION } from '../protocol/meta-context.js';
import type { StatusExtent } from '../protocol/reply-chunk.js';
import { printableText } from '../protocol/text.js';
import type { NbdTarget } from '../transport/uri.js';
import { AttachError } from './errors.js';
import { type OpenExport, openExport } from './query.js';

/** How long one answer may take: a server may have to look through a whole disk. */
const ANSWER_LIMIT_MS = 60_000;
/** Asked for at once: less than 4 GiB, and a multiple of every block size. */
const REQUEST_BYTES_MAX = 2 ** 32 - 65_536;
/** What a map may have of pieces, and of requests: a hostile server could go on for ever. */
const PIECES_MAX = 1_000_000;
const REQUESTS_MAX = 1_000_000;
const KNOWN_STATES = NBD_STATE_HOLE | NBD_STATE_ZERO;

/** A piece of an export whose neighbours are of another state. */
export interface StatusPiece {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** NBD_STATE_… flags of base:allocation; what else a server sets means nothing. */
  readonly status: number;
}

export interface ExportMap {
  readonly sizeBytes: number;
  readonly pieces: readonly StatusPiece[];
}

export interface MapWatch {
  readonly onMessage?: OnHandshakeMessage | undefined;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/** Asks a server where the data, zeroes and holes of an export lie, from its first to its last byte. */
export async function mapExport(
  target: NbdTarget,
  { onMessage, onProgress = () => {} }: MapWatch = {},
): Promise<ExportMap> {
  const opened = await openExport(target, [BASE_ALLOCATION.name], onMessage);
  try {
    const context = opened.outcome.contexts.find(({ name }) => name === BASE_ALLOCATION.name);
    if (context === undefined) {
      throw new ProtocolError('unsupported', `the server does not tell where the holes are (${BASE_ALLOCATION.name})`);
    }
    return await mapContext(opened, context.id, onProgress);
  } finally {
    opened.socket.leave();
  }
}

async function mapContext(
  { socket, outcome }: OpenExport,
  contextId: number,
  onProgress: (doneBytes: number, totalBytes: number) => void,
): Promise<ExportMap> {
  const { sizeBytes } = outcome.export;
  const pieces: StatusPiece[] = [];
  let at = 0;
  for (let requests = 0; at < sizeBytes; requests += 1) {
    if (requests === REQUESTS_MAX || pieces.length > PIECES_MAX) {
      throw new ProtocolError('too-big', `the map has more than ${PIECES_MAX} pieces or took ${REQUESTS_MAX} requests`);
    }
    const lengthBytes = Math.min(sizeBytes - at, REQUEST_BYTES_MAX);
    const request = { type: NBD_CMD_BLOCK_STATUS, offsetBytes: at, lengthBytes };
    const reply = await socket.ask(request, ANSWER_LIMIT_MS);
    if (reply.error !== 0) throw statusError(reply, at);
    for (const extent of reply.extents.get(contextId) ?? []) at += add(pieces, at, sizeBytes, extent);
    onProgress(at, sizeBytes);
  }
  return { sizeBytes, pieces };
}

/** Answers how many bytes the extent has of the export: what a server tells beyond its end means nothing. */
function add(pieces: StatusPiece[], at: number, sizeBytes: number, extent: StatusExtent): number {
  const bytes = Math.min(extent.lengthBytes, sizeBytes - at);
  const status = extent.status & KNOWN_STATES;
  if (bytes === 0) return 0;
  const last = pieces.at(-1);
  if (last?.status === status) pieces.pop();
  const from = last?.status === status ? last.offsetBytes : at;
  pieces.push({ offsetBytes: from, lengthBytes: at + bytes - from, status });
  return bytes;
}

/** NBD's error values are Linux's, but for those that it does not have. */
function statusError({ error, message }: ServerReply, at: number): AttachError {
  const why = NBD_ERRORS.includes(error) ? errnoText(error) : `error ${error}, which NBD does not have`;
  const words = message === '' ? '' : `; it says: ${printableText(message)}`;
  return new AttachError('system', `the server cannot tell what lies at byte ${at}: ${why}${words}`);
}
