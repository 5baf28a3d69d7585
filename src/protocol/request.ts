import {
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_WRITE,
  NBD_EXTENDED_REQUEST_BYTES,
  NBD_EXTENDED_REQUEST_MAGIC,
  NBD_REQUEST_BYTES,
  NBD_REQUEST_MAGIC,
} from './constants.js';
import type { ReplyStyle } from './reply.js';

/**
 * One request (proto.md, 'Request message'). A worker makes one record and decodes every request into it, so nothing is
 * allocated a request.
 */
export interface Request {
  /** NBD_CMD_FLAG_… bits. */
  flags: number;
  /** NBD_CMD_… */
  type: number;
  /** The client's cookie in two halves: it only has to come back as it was. */
  cookieHigh: number;
  cookieLow: number;
  /** Exact up to 2^53 - 1; above, rounded but still above, which no export reaches. */
  offsetBytes: number;
  /** The offset in two halves: an extended reply brings it back as it was, however senseless. */
  offsetHigh: number;
  offsetLow: number;
  /** 0 to 2^32 - 1; in an extended request more, exact as the offset is. */
  lengthBytes: number;
}

/** What a request is encoded from. */
export type RequestFields = Omit<Request, 'offsetHigh' | 'offsetLow'>;

export function emptyRequest(): Request {
  return {
    flags: 0,
    type: 0,
    cookieHigh: 0,
    cookieLow: 0,
    offsetBytes: 0,
    offsetHigh: 0,
    offsetLow: 0,
    lengthBytes: 0,
  };
}

/**
 * Decodes the 28 bytes at `at` into `request`. Answers false when they do not begin with the request magic: the stream
 * is out of step then and the connection must end.
 */
export function decodeRequest(view: DataView, at: number, request: Request): boolean {
  if (view.getUint32(at) !== NBD_REQUEST_MAGIC) return false;
  decodeFields(view, at, request);
  request.lengthBytes = view.getUint32(at + 24);
  return true;
}

/** The same for the 32 bytes of an extended request, the only kind once extended headers are negotiated. */
export function decodeExtendedRequest(view: DataView, at: number, request: Request): boolean {
  if (view.getUint32(at) !== NBD_EXTENDED_REQUEST_MAGIC) return false;
  decodeFields(view, at, request);
  request.lengthBytes = view.getUint32(at + 24) * 2 ** 32 + view.getUint32(at + 28);
  return true;
}

/** Writes a request's 28 bytes at `at`; the offset must be exact. Answers where the next byte goes. */
export function encodeRequest(view: DataView, at: number, request: Readonly<RequestFields>): number {
  view.setUint32(at, NBD_REQUEST_MAGIC);
  encodeFields(view, at, request);
  view.setUint32(at + 24, request.lengthBytes);
  return at + NBD_REQUEST_BYTES;
}

/** Writes an extended request's 32 bytes at `at`; offset and length must be exact. Answers where the next byte goes. */
export function encodeExtendedRequest(view: DataView, at: number, request: Readonly<RequestFields>): number {
  view.setUint32(at, NBD_EXTENDED_REQUEST_MAGIC);
  encodeFields(view, at, request);
  view.setUint32(at + 24, Math.floor(request.lengthBytes / 2 ** 32));
  view.setUint32(at + 28, request.lengthBytes % 2 ** 32);
  return at + NBD_EXTENDED_REQUEST_BYTES;
}

/**
 * How many bytes of data follow the request: they are on the wire whether or not it can be served. A WRITE's do, and under
 * extended headers those of whatever has the flag for it, which a WRITE must have too, but QEMU's never has (11.1, seen).
 */
export function payloadBytes(request: Readonly<Request>, replyStyle: ReplyStyle): number {
  const carriesData =
    request.type === NBD_CMD_WRITE || (replyStyle === 'extended' && (request.flags & NBD_CMD_FLAG_PAYLOAD_LEN) !== 0);
  return carriesData ? request.lengthBytes : 0;
}

/** What both kinds have behind the magic. */
function decodeFields(view: DataView, at: number, request: Request): void {
  request.flags = view.getUint16(at + 4);
  request.type = view.getUint16(at + 6);
  request.cookieHigh = view.getUint32(at + 8);
  request.cookieLow = view.getUint32(at + 12);
  request.offsetHigh = view.getUint32(at + 16);
  request.offsetLow = view.getUint32(at + 20);
  request.offsetBytes = request.offsetHigh * 2 ** 32 + request.offsetLow;
}

function encodeFields(view: DataView, at: number, request: Readonly<RequestFields>): void {
  view.setUint16(at + 4, request.flags);
  view.setUint16(at + 6, request.type);
  view.setUint32(at + 8, request.cookieHigh);
  view.setUint32(at + 12, request.cookieLow);
  view.setUint32(at + 16, Math.floor(request.offsetBytes / 2 ** 32));
  view.setUint32(at + 20, request.offsetBytes % 2 ** 32);
}
