import {
  NBD_REP_ERR_BLOCK_SIZE_REQD,
  NBD_REP_ERR_EXT_HEADER_REQD,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_PLATFORM,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_SHUTDOWN,
  NBD_REP_ERR_TLS_REQD,
  NBD_REP_ERR_TOO_BIG,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
} from './constants.js';
import { ProtocolError, type ProtocolErrorCode } from './errors.js';
import { STRING_BYTES_MAX } from './limits.js';
import { printableText } from './text.js';

/**
 * The error for an error reply of type `type` to our question, with the server's own text out of the reply's `data`.
 * `exportName` is the export that was asked for, `undefined` when the list was.
 */
export function optionError(type: number, data: Uint8Array, exportName: string | undefined): ProtocolError {
  const [code, sentence] = explain(type, exportName);
  const text = printableText(lenientUtf8.decode(data.subarray(0, STRING_BYTES_MAX)));
  return new ProtocolError(code, text === '' ? sentence : `${sentence}; it says: ${text}`);
}

/** An export as messages call it. */
export function exportInWords(exportName: string): string {
  return exportName === '' ? 'the default export' : `the export '${printableText(exportName)}'`;
}

function explain(type: number, exportName: string | undefined): readonly [ProtocolErrorCode, string] {
  const wish = exportName === undefined ? 'the list of its exports' : exportInWords(exportName);
  switch (type) {
    case NBD_REP_ERR_UNSUP:
      return ['unsupported', `the server does not support a question for ${wish}`];
    case NBD_REP_ERR_POLICY:
      return ['policy', `the server's policy forbids ${wish}`];
    case NBD_REP_ERR_INVALID:
      return ['invalid', `the server calls our question for ${wish} invalid`];
    case NBD_REP_ERR_PLATFORM:
      return ['platform', `the server's platform cannot offer ${wish}`];
    case NBD_REP_ERR_TLS_REQD:
      return ['tls-required', `the server offers ${wish} over TLS only`];
    case NBD_REP_ERR_UNKNOWN:
      return ['unknown-export', exportName === '' ? NO_DEFAULT_EXPORT : `the server does not know ${wish}`];
    case NBD_REP_ERR_SHUTDOWN:
      return ['shutdown', 'the server is shutting down'];
    case NBD_REP_ERR_BLOCK_SIZE_REQD:
      return ['block-size-required', `the server offers ${wish} only to clients that obey its block sizes`];
    case NBD_REP_ERR_TOO_BIG:
      return ['refused', `the server calls our question for ${wish}, or its answer, too big`];
    case NBD_REP_ERR_EXT_HEADER_REQD:
      return ['refused', `the server offers ${wish} only to clients that speak extended headers`];
    default:
      return ['refused', `the server refuses ${wish} with the unknown error 0x${type.toString(16)}`];
  }
}

const NO_DEFAULT_EXPORT = 'the server has no default export: name one';

// A text that is damaged must not hide the error that it came with.
const lenientUtf8 = new TextDecoder('utf-8');
