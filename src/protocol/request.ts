import { NBD_CMD_WRITE, NBD_REQUEST_BYTES, NBD_REQUEST_MAGIC } from './constants.js';

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
  /** 0 to 2^32 - 1. */
  lengthBytes: number;
}

export function emptyRequest(): Request {
  return { flags: 0, type: 0, cookieHigh: 0, cookieLow: 0, offsetBytes: 0, lengthBytes: 0 };
}

/**
 * Decodes the 28 bytes at `at` into `request`. Answers false when they do not begin with the request magic: the stream
 * is out of step then and the connection must end.
 */
export function decodeRequest(view: DataView, at: number, request: Request): boolean {
  if (view.getUint32(at) !== NBD_REQUEST_MAGIC) return false;
  request.flags = view.getUint16(at + 4);
  request.type = view.getUint16(at + 6);
  request.cookieHigh = view.getUint32(at + 8);
  request.cookieLow = view.getUint32(at + 12);
  request.offsetBytes = view.getUint32(at + 16) * 2 ** 32 + view.getUint32(at + 20);
  request.lengthBytes = view.getUint32(at + 24);
  return true;
}

/** Writes a request's 28 bytes at `at`; the offset must be exact. Answers where the next byte goes. */
export function encodeRequest(view: DataView, at: number, request: Readonly<Request>): number {
  view.setUint32(at, NBD_REQUEST_MAGIC);
  view.setUint16(at + 4, request.flags);
  view.setUint16(at + 6, request.type);
  view.setUint32(at + 8, request.cookieHigh);
  view.setUint32(at + 12, request.cookieLow);
  view.setUint32(at + 16, Math.floor(request.offsetBytes / 2 ** 32));
  view.setUint32(at + 20, request.offsetBytes % 2 ** 32);
  view.setUint32(at + 24, request.lengthBytes);
  return at + NBD_REQUEST_BYTES;
}

/** How many bytes of data follow the request: they are on the wire whether or not it can be served. */
export function payloadBytes(request: Readonly<Request>): number {
  return request.type === NBD_CMD_WRITE ? request.lengthBytes : 0;
}
